//! Roles made over the administrator connection.
