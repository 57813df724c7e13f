/* Forks without end. */
#include <unistd.h>

int main(void)
{
	for (;;)
		if (fork() < 0)
			usleep(10000);
}
