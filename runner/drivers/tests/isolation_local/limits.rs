use crate::support::TestFn;
pub(crate) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![]
}
