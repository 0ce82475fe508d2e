//! The one file that names a driver.
