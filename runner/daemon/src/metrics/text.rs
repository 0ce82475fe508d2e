//! The text format of Prometheus, version 0.0.4, a family at a time:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.
use std::fmt::Write;

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

/// Writes into one string; what it names is known to be a good name, what it labels with is not.
pub(super) struct Text {
    out: String,
    family: &'static str,
}

impl Text {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { out: String::with_capacity(bytes), family: "" }
    }

    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing into a string does not fail.
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self.family = name;
    }

    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.out.push_str(self.family);
        for (n, (name, label)) in labels.iter().enumerate() {
            self.out.push(if n == 0 { '{' } else { ',' });
            self.out.push_str(name);
            self.out.push_str("=\"");
            escape(&mut self.out, label);
            self.out.push('"');
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }

    /// A family of one series without labels.
    pub(super) fn one(&mut self, name: &'static str, kind: Kind, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(&[], value);
    }

    pub(super) fn into_string(self) -> String {
        self.out
    }
}

fn escape(out: &mut String, label: &str) {
    for character in label.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_end_its_line() {
        let mut text = Text::with_capacity(0);
        text.family("muster_x", Kind::Gauge, "Something.");
        text.sample(&[("a", "say \"so\"\nmuster_y 1\\"), ("b", "é")], 1.5);
        text.sample(&[], 1_732_486_507.25);
        assert_eq!(
            text.into_string(),
            "# HELP muster_x Something.\n# TYPE muster_x gauge\n\
             muster_x{a=\"say \\\"so\\\"\\nmuster_y 1\\\\\",b=\"é\"} 1.5\nmuster_x 1732486507.25\n"
        );
    }
}
