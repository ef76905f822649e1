//! What is known about graphics cards and those who use them, as data.

mod known_services;

pub use known_services::services_of_driver;
