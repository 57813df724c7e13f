//! Sizes over time as a drawing.

use serde::Serialize;

use super::amount;
use super::image::Point;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 160.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = WIDTH - 6.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = HEIGHT - 28.0;

/// What the template draws; lengths are in the drawing's own units.
#[derive(Debug, Serialize)]
pub(super) struct Plot {
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    least: String,
    most: String,
    first: String,
    last: String,
    points: Vec<Mark>,
}

#[derive(Debug, Serialize)]
struct Mark {
    x: String,
    y: String,
    serial: String,
    size: String,
}

impl Plot {
    /// A drawing of at least two images, oldest first.
    pub(super) fn of(history: &[Point]) -> Option<Self> {
        let ([first, .., last], Some(least), Some(most)) = (
            history,
            history.iter().map(|point| point.size).min(),
            history.iter().map(|point| point.size).max(),
        ) else {
            return None;
        };
        let time = |point: &Point| point.serial.time().timestamp() as f64;
        let (start, span) = (time(first), (time(last) - time(first)).max(1.0));
        let range = (most - least).max(1) as f64;
        let marks = history.iter().map(|point| Mark {
            x: format!("{:.1}", LEFT + (time(point) - start) / span * (RIGHT - LEFT)),
            y: format!("{:.1}", BOTTOM - (point.size - least) as f64 / range * (BOTTOM - TOP)),
            serial: point.serial.to_string(),
            size: amount(point.size),
        });
        Some(Self {
            width: WIDTH,
            height: HEIGHT,
            left: LEFT,
            right: RIGHT,
            top: TOP,
            bottom: BOTTOM,
            least: amount(least),
            most: amount(most),
            first: first.serial.to_string(),
            last: last.serial.to_string(),
            points: marks.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_is_at_the_bottom_and_time_runs_to_the_right() {
        let point = |serial: &str, size| Point { serial: serial.parse().unwrap(), size };
        assert!(Plot::of(&[point("20260101_0000", 5)]).is_none());
        let history = [point("20260101_0000", 20), point("20260102_0000", 10), point("20260105_0000", 30)];
        let plot = Plot::of(&history).unwrap();
        let marks: Vec<_> = plot.points.iter().map(|mark| (mark.x.as_str(), mark.y.as_str())).collect();
        assert_eq!(marks, [("70.0", "72.0"), ("211.0", "132.0"), ("634.0", "12.0")]);
        let flat = Plot::of(&[point("20260101_0000", 7), point("20260101_0000", 7)]).unwrap();
        assert!(flat.points.iter().all(|mark| mark.y == "132.0"));
    }
}
