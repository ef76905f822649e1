//! Lines for the log that are words alone. Each of tracing's macros keeps a description of its place in the program, which
//! every start pays for: these have one in all for each level.

use std::fmt;

pub(crate) fn error(words: fmt::Arguments<'_>) {
    tracing::error!("{words}");
}

pub(crate) fn warning(words: fmt::Arguments<'_>) {
    tracing::warn!("{words}");
}

pub(crate) fn info(words: fmt::Arguments<'_>) {
    tracing::info!("{words}");
}

/// Logs a failure, in the manner of `format!`.
macro_rules! log_error {
    ($($words:tt)+) => { $crate::log::say::error(format_args!($($words)+)) };
}

/// Logs a warning, in the manner of `format!`.
macro_rules! log_warning {
    ($($words:tt)+) => { $crate::log::say::warning(format_args!($($words)+)) };
}

/// Logs something good to know, in the manner of `format!`.
macro_rules! log_info {
    ($($words:tt)+) => { $crate::log::say::info(format_args!($($words)+)) };
}

pub(crate) use {log_error, log_info, log_warning};
