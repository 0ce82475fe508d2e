//! The system calls that processes of a sandbox may make: those of a list, and of some only with some arguments. Two filters,
//! because one filter has one answer: what is not on the list is refused with EPERM; `clone3` and `memfd_create` do not exist
//! (ENOSYS), so that the C library and wasmtime take their other way.
mod calls;

use std::collections::BTreeMap;

use calls::{ABSENT, ALLOWED, ALLOWED_HERE, IOCTLS, NAMESPACES, NEWEST, SOCKET_FAMILIES};
use drill::stop::Stop;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// What the filters do, in words; stands in the isolation template and so in the evidence.
pub(super) fn in_words() -> String {
    let names = |list: &[(&'static str, libc::c_long)]| {
        list.iter().map(|(name, _)| name.trim_start_matches("SYS_")).collect::<Vec<_>>().join(" ")
    };
    let words = |list: Vec<&str>| list.join(" ");
    format!(
        "allowed: {} {}\nallowed: clone without {}\nallowed: socket of {}\nallowed: socketpair of UNIX\nallowed: ioctl {}\n\
         allowed: fcntl without NOTIFY\n\
         absent (ENOSYS): {}, and what is newer than {NEWEST}\nrefused (EPERM): everything else, x32 among it\n\
         killed: system calls of another architecture\n",
        names(ALLOWED),
        names(ALLOWED_HERE),
        words(NAMESPACES.iter().map(|(name, _)| *name).collect()),
        words(SOCKET_FAMILIES.iter().map(|(name, _)| *name).collect()),
        words(IOCTLS.iter().map(|(name, _)| *name).collect()),
        names(ABSENT),
    )
}

/// The filters as bubblewrap reads them: `struct sock_filter`s in the machine's byte order.
pub(super) fn programs() -> Result<[Vec<u8>; 2], Stop> {
    let broken = |error: BackendError| Stop::internal(format!("compiling the system call filter: {error}"));
    let errno = |errno: libc::c_int| SeccompAction::Errno(errno.cast_unsigned());
    let listed = compile(allowed().map_err(broken)?, errno(libc::EPERM), SeccompAction::Allow).map_err(broken)?;
    let absent = ABSENT.iter().map(|(_, number)| (*number, vec![])).collect();
    let absent = compile(absent, SeccompAction::Allow, errno(libc::ENOSYS)).map_err(broken)?;
    Ok([bytes(&within_known_numbers(listed)), bytes(&absent)])
}

fn allowed() -> Result<Rules, BackendError> {
    // The second filter answers for what is absent: of two that answer with an error, the one that was added last is heard.
    let whatever = ALLOWED.iter().chain(ALLOWED_HERE).chain(ABSENT);
    let mut rules: Rules = whatever.map(|(_, number)| (*number, vec![])).collect();
    let namespaces = NAMESPACES.iter().fold(0, |bits, (_, flag)| bits | u64::from(flag.cast_unsigned()));
    let none = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(namespaces), 0)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![none])?]);
    let families = SOCKET_FAMILIES.iter().map(|(_, family)| u64::from(family.cast_unsigned()));
    rules.insert(libc::SYS_socket, one_of(0, families)?);
    rules.insert(libc::SYS_socketpair, one_of(0, [u64::from(libc::AF_UNIX.cast_unsigned())])?);
    // Who is told of each directory that the watchdog opens moves its files around it. For the same reason there is no inotify.
    let notify = u64::from(libc::F_NOTIFY.cast_unsigned());
    let other = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, notify)?;
    rules.insert(libc::SYS_fcntl, vec![SeccompRule::new(vec![other])?]);
    rules.insert(libc::SYS_ioctl, one_of(1, IOCTLS.iter().map(|(_, request)| *request))?);
    Ok(rules)
}

fn one_of(argument: u8, values: impl IntoIterator<Item = u64>) -> Result<Vec<SeccompRule>, BackendError> {
    let equal = |value| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value);
    values.into_iter().map(|value| SeccompRule::new(vec![equal(value)?])).collect()
}

fn compile(rules: Rules, otherwise: SeccompAction, listed: SeccompAction) -> Result<BpfProgram, BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, otherwise, listed, arch)?.try_into()
}

/// Before the list: the x32 interface of `x86_64`, which passes the architecture check under other numbers, is refused; and what
/// is newer than the list does not exist, so that a newer C library takes its older way.
fn within_known_numbers(program: BpfProgram) -> BpfProgram {
    const X32: u32 = 0x4000_0000;
    let instruction = |code: u32, jt, jf, k| sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt, jf, k };
    let at_least = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    let answer = |errno: libc::c_int| {
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned())
    };
    let newer = u32::try_from(NEWEST + 1).unwrap_or(X32);
    let prologue = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(at_least, 0, 1, X32),
        answer(libc::EPERM),
        instruction(at_least, 0, 1, newer),
        answer(libc::ENOSYS),
    ];
    prologue.into_iter().chain(program).collect()
}

fn bytes(program: &[sock_filter]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.jt, instruction.jf]);
        bytes.extend(instruction.k.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_filters_compile_and_are_whole_instructions() {
        let [listed, absent] = programs().expect("the filters compile");
        assert!(listed.len() > absent.len() && absent.len() > 8);
        assert!(listed.len().is_multiple_of(8) && listed.len() / 8 < 4096);
    }

    #[test]
    fn the_words_name_what_the_rules_hold() {
        let words = in_words();
        let rules = allowed().expect("rules");
        for (name, number) in ALLOWED.iter().chain(ALLOWED_HERE) {
            assert!(words.contains(name.trim_start_matches("SYS_")) && rules[number].is_empty(), "{name}");
        }
        let conditional = [libc::SYS_clone, libc::SYS_socket, libc::SYS_socketpair, libc::SYS_ioctl, libc::SYS_fcntl];
        assert!(conditional.iter().all(|number| !rules[number].is_empty()));
        assert_eq!(
            rules.len(),
            ALLOWED.len() + ALLOWED_HERE.len() + ABSENT.len() + conditional.len(),
            "a call is listed twice"
        );
    }

    /// What a list must never come to hold.
    #[test]
    fn what_leads_out_is_not_on_the_list() {
        let rules = allowed().expect("rules");
        for out in [
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_getfd,
            libc::SYS_pidfd_open,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_mount,
            libc::SYS_move_mount,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_open_by_handle_at,
            libc::SYS_seccomp,
            libc::SYS_personality,
            libc::SYS_vmsplice,
            libc::SYS_inotify_init1,
            libc::SYS_fanotify_init,
            libc::SYS_mknodat,
            libc::SYS_init_module,
            libc::SYS_kexec_load,
        ] {
            assert!(!rules.contains_key(&out), "{out}");
        }
    }
}
