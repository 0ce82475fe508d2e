//! The system calls that no process of a sandbox may make. Two filters, because one filter has one answer: most are refused
//! with EPERM; `clone3` and `memfd_create` do not exist (ENOSYS), so that the C library and wasmtime take their other way.
use std::collections::BTreeMap;

use drill::stop::Stop;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Refused whatever the arguments are.
const REFUSED: &[(&str, libc::c_long)] = &[
    ("unshare", libc::SYS_unshare),
    ("setns", libc::SYS_setns),
    ("ptrace", libc::SYS_ptrace),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("process_madvise", libc::SYS_process_madvise),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("kcmp", libc::SYS_kcmp),
    ("keyctl", libc::SYS_keyctl),
    ("add_key", libc::SYS_add_key),
    ("request_key", libc::SYS_request_key),
    ("bpf", libc::SYS_bpf),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("io_uring_enter", libc::SYS_io_uring_enter),
    ("io_uring_register", libc::SYS_io_uring_register),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("seccomp", libc::SYS_seccomp),
    ("personality", libc::SYS_personality),
    ("mount", libc::SYS_mount),
    ("umount2", libc::SYS_umount2),
    ("pivot_root", libc::SYS_pivot_root),
    ("chroot", libc::SYS_chroot),
    ("open_tree", libc::SYS_open_tree),
    ("move_mount", libc::SYS_move_mount),
    ("fsopen", libc::SYS_fsopen),
    ("fsconfig", libc::SYS_fsconfig),
    ("fsmount", libc::SYS_fsmount),
    ("fspick", libc::SYS_fspick),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("name_to_handle_at", libc::SYS_name_to_handle_at),
    ("fanotify_init", libc::SYS_fanotify_init),
    ("fanotify_mark", libc::SYS_fanotify_mark),
    ("vmsplice", libc::SYS_vmsplice),
    ("memfd_secret", libc::SYS_memfd_secret),
    ("init_module", libc::SYS_init_module),
    ("finit_module", libc::SYS_finit_module),
    ("delete_module", libc::SYS_delete_module),
    ("kexec_load", libc::SYS_kexec_load),
    ("kexec_file_load", libc::SYS_kexec_file_load),
    ("reboot", libc::SYS_reboot),
    ("swapon", libc::SYS_swapon),
    ("swapoff", libc::SYS_swapoff),
    ("acct", libc::SYS_acct),
    ("syslog", libc::SYS_syslog),
    ("quotactl", libc::SYS_quotactl),
    ("quotactl_fd", libc::SYS_quotactl_fd),
    ("mbind", libc::SYS_mbind),
    ("set_mempolicy", libc::SYS_set_mempolicy),
    ("set_mempolicy_home_node", libc::SYS_set_mempolicy_home_node),
    ("migrate_pages", libc::SYS_migrate_pages),
    ("move_pages", libc::SYS_move_pages),
    ("lookup_dcookie", libc::SYS_lookup_dcookie),
    ("vhangup", libc::SYS_vhangup),
    ("settimeofday", libc::SYS_settimeofday),
    ("clock_settime", libc::SYS_clock_settime),
    ("clock_adjtime", libc::SYS_clock_adjtime),
    ("adjtimex", libc::SYS_adjtimex),
];

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[(&str, libc::c_long)] = &[
    ("iopl", libc::SYS_iopl),
    ("ioperm", libc::SYS_ioperm),
    ("modify_ldt", libc::SYS_modify_ldt),
    ("uselib", libc::SYS_uselib),
    ("ustat", libc::SYS_ustat),
    ("sysfs", libc::SYS_sysfs),
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[(&str, libc::c_long)] = &[];

const ABSENT: &[(&str, libc::c_long)] = &[("clone3", libc::SYS_clone3), ("memfd_create", libc::SYS_memfd_create)];

/// New namespaces, bit by bit. `CLONE_NEWTIME` shares its bit with the exit signal, and only `clone3` and `unshare` take it.
const NAMESPACES: &[(&str, libc::c_int)] = &[
    ("NEWNS", libc::CLONE_NEWNS),
    ("NEWCGROUP", libc::CLONE_NEWCGROUP),
    ("NEWUTS", libc::CLONE_NEWUTS),
    ("NEWIPC", libc::CLONE_NEWIPC),
    ("NEWUSER", libc::CLONE_NEWUSER),
    ("NEWPID", libc::CLONE_NEWPID),
    ("NEWNET", libc::CLONE_NEWNET),
];

const SOCKET_FAMILIES: &[(&str, libc::c_int)] =
    &[("UNIX", libc::AF_UNIX), ("INET", libc::AF_INET), ("INET6", libc::AF_INET6), ("NETLINK", libc::AF_NETLINK)];

/// Would put characters into a terminal's input.
const IOCTLS: &[(&str, u64)] = &[("TIOCSTI", libc::TIOCSTI), ("TIOCLINUX", 0x541c)];

/// What the filters do, in words; stands in the isolation template and so in the evidence.
pub(super) fn in_words() -> String {
    let names = |list: &[(&str, libc::c_long)]| list.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ");
    let words = |list: Vec<&str>| list.join(" ");
    format!(
        "refused (EPERM): {} {}\nrefused (EPERM): clone with {}\nrefused (EPERM): socket of any family but {}\n\
         refused (EPERM): socketpair of any family but UNIX\nrefused (EPERM): ioctl {}\nabsent (ENOSYS): {}\n\
         refused (EPERM): x32 system calls\nkilled: system calls of another architecture\n",
        names(REFUSED),
        names(REFUSED_HERE),
        words(NAMESPACES.iter().map(|(name, _)| *name).collect()),
        words(SOCKET_FAMILIES.iter().map(|(name, _)| *name).collect()),
        words(IOCTLS.iter().map(|(name, _)| *name).collect()),
        names(ABSENT),
    )
}

/// The filters as bubblewrap reads them: `struct sock_filter`s in the machine's byte order.
pub(super) fn programs() -> Result<[Vec<u8>; 2], Stop> {
    let broken = |error: &dyn std::fmt::Display| Stop::internal(format!("compiling the system call filter: {error}"));
    let refused = compile(refused_rules().map_err(|e| broken(&e))?, libc::EPERM).map_err(|e| broken(&e))?;
    let absent = ABSENT.iter().map(|(_, number)| (*number, vec![])).collect();
    let absent = compile(absent, libc::ENOSYS).map_err(|e| broken(&e))?;
    Ok([bytes(&without_x32(refused)), bytes(&absent)])
}

fn refused_rules() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = REFUSED.iter().chain(REFUSED_HERE).map(|(_, number)| (*number, vec![])).collect();
    let mut namespaces = Vec::new();
    for (_, flag) in NAMESPACES {
        let bit = u64::from(flag.cast_unsigned());
        let set = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bit), bit)?;
        namespaces.push(SeccompRule::new(vec![set])?);
    }
    rules.insert(libc::SYS_clone, namespaces);
    rules.insert(libc::SYS_socket, vec![any_family_but(SOCKET_FAMILIES.iter().map(|(_, family)| *family))?]);
    rules.insert(libc::SYS_socketpair, vec![any_family_but([libc::AF_UNIX])?]);
    let mut ioctls = Vec::new();
    for (_, request) in IOCTLS {
        let equal = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *request)?;
        ioctls.push(SeccompRule::new(vec![equal])?);
    }
    rules.insert(libc::SYS_ioctl, ioctls);
    Ok(rules)
}

fn any_family_but(allowed: impl IntoIterator<Item = libc::c_int>) -> Result<SeccompRule, seccompiler::BackendError> {
    let mut conditions = Vec::new();
    for family in allowed {
        let number = u64::from(family.cast_unsigned());
        conditions.push(SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, number)?);
    }
    SeccompRule::new(conditions)
}

fn compile(rules: Rules, errno: libc::c_int) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let answer = SeccompAction::Errno(errno.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, answer, arch)?.try_into()
}

/// The x32 interface of `x86_64` passes the architecture check under other numbers, which no rule names.
fn without_x32(program: BpfProgram) -> BpfProgram {
    if !cfg!(target_arch = "x86_64") {
        return program;
    }
    let instruction = |code: u32, jt, jf, k| sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt, jf, k };
    let load_number = instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0);
    let below = instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, 0x4000_0000);
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    let refuse = instruction(libc::BPF_RET | libc::BPF_K, 0, 0, refuse);
    [load_number, below, refuse].into_iter().chain(program).collect()
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
        let [refused, absent] = programs().expect("the filters compile");
        assert!(refused.len() > absent.len() && absent.len() > 8);
        assert!(refused.len().is_multiple_of(8) && refused.len() / 8 < 4096);
    }

    #[test]
    fn the_words_name_what_the_rules_hold() {
        let words = in_words();
        let rules = refused_rules().expect("rules");
        for (name, number) in REFUSED.iter().chain(REFUSED_HERE) {
            assert!(words.contains(name) && rules[number].is_empty(), "{name}");
        }
    }
}
