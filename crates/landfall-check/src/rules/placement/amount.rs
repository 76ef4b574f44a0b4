//! Processor time and memory together.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul, Sub};

/// Processor time in millicores and memory in bytes. Subtraction stops at nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::rules) struct Amount {
    pub(in crate::rules) cpu: u64,
    pub(in crate::rules) memory: u64,
}

impl Amount {
    pub(in crate::rules) const fn new(cpu: u64, memory: u64) -> Self {
        Self { cpu, memory }
    }

    pub(in crate::rules) fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// Whether there is room for `need`.
    pub(in crate::rules) fn covers(self, need: Self) -> bool {
        self.cpu >= need.cpu && self.memory >= need.memory
    }

    /// The larger of each.
    pub(in crate::rules) fn most(self, other: Self) -> Self {
        Self { cpu: self.cpu.max(other.cpu), memory: self.memory.max(other.memory) }
    }
}

impl Add for Amount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { cpu: self.cpu.saturating_add(other.cpu), memory: self.memory.saturating_add(other.memory) }
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Amount {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(other.cpu), memory: self.memory.saturating_sub(other.memory) }
    }
}

impl Mul<u32> for Amount {
    type Output = Self;
    fn mul(self, times: u32) -> Self {
        let times = u64::from(times);
        Self { cpu: self.cpu.saturating_mul(times), memory: self.memory.saturating_mul(times) }
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), Add::add)
    }
}

/// `24 CPU and 96 GiB`, with at most two decimals, rounded down.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = |whole: u64, hundredths: u64| {
            let text = format!("{whole}.{hundredths:02}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        let cpu = hundredths(self.cpu / 1000, self.cpu % 1000 / 10);
        let mebibytes = self.memory >> 20;
        if mebibytes != 0 && mebibytes < 1024 {
            write!(f, "{cpu} CPU and {mebibytes} MiB")
        } else {
            write!(f, "{cpu} CPU and {} GiB", hundredths(mebibytes >> 10, (mebibytes & 1023) * 100 / 1024))
        }
    }
}
