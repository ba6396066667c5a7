//! Charts of text: block characters on a terminal, plain ones elsewhere.

/// Whether block characters may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Eighths of a block.
    Blocks,
    /// ASCII only.
    Plain,
}

const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const BARS: [char; 9] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];

impl Style {
    /// A character filled to `part` (0 to 1) from below.
    fn column(self, part: f64) -> char {
        match self {
            Self::Blocks => BLOCKS[eighths(part)],
            Self::Plain if part >= 0.75 => '#',
            Self::Plain if part >= 0.25 => '.',
            Self::Plain => ' ',
        }
    }

    /// A bar of at most `width` characters, full at `max`.
    pub fn bar(self, value: f64, max: f64, width: usize) -> String {
        let full = (value / max).clamp(0.0, 1.0) * width as f64;
        let mut bar: String = match self {
            Self::Blocks => (0..width).map(|i| BARS[eighths(full - i as f64)]).collect(),
            Self::Plain => "#".repeat(full.round() as usize),
        };
        bar.truncate(bar.trim_end().len());
        bar
    }

    /// A chart of one column a value, `height` lines from the top down, full at `max`.
    pub fn chart(self, values: &[f64], max: f64, height: usize) -> Vec<String> {
        (0..height)
            .rev()
            .map(|row| {
                let part = |value: &f64| (value / max * height as f64) - row as f64;
                values
                    .iter()
                    .map(|value| self.column(part(value)))
                    .collect()
            })
            .collect()
    }
}

fn eighths(part: f64) -> usize {
    (part.clamp(0.0, 1.0) * 8.0).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_grow_by_eighths() {
        let bar = |value| Style::Blocks.bar(value, 4.0, 4);
        assert_eq!(
            [bar(0.0), bar(1.0), bar(2.5), bar(9.0)],
            ["", "█", "██▌", "████"]
        );
        assert_eq!(Style::Plain.bar(2.0, 4.0, 10), "#####");
    }

    #[test]
    fn charts_stack_their_lines() {
        let values = [0.0, 1.0, 1.5, 2.0];
        assert_eq!(Style::Blocks.chart(&values, 2.0, 2), ["  ▄█", " ███"]);
        assert_eq!(Style::Plain.chart(&values, 2.0, 2), ["  .#", " ###"]);
        assert_eq!(Style::Blocks.chart(&values, 2.0, 1), [" ▄▆█"]);
    }
}
