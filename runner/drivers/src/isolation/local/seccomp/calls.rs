//! The tables of the system call filter: a row for each call that PostgreSQL, its extensions, the programs beside it, and muster
//! and its plugins inside were seen to need, or that libraries of theirs use on other versions.

/// A table of names and their numbers on this machine.
macro_rules! calls {
    ($($name:ident)*) => {
        &[$((stringify!($name), libc::$name)),*]
    };
}

/// Allowed whatever the arguments are.
pub(super) const ALLOWED: &[(&str, libc::c_long)] = calls! {
    SYS_read SYS_write SYS_close SYS_fstat SYS_lseek SYS_mmap SYS_mprotect SYS_munmap SYS_mremap SYS_msync SYS_mincore
    SYS_madvise SYS_brk SYS_pread64 SYS_pwrite64 SYS_readv SYS_writev SYS_preadv SYS_pwritev SYS_preadv2 SYS_pwritev2
    SYS_sendfile SYS_splice SYS_tee SYS_copy_file_range SYS_readahead SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn
    SYS_rt_sigpending SYS_rt_sigtimedwait SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo SYS_rt_sigsuspend SYS_sigaltstack
    SYS_dup SYS_dup3 SYS_flock SYS_pipe2 SYS_openat SYS_openat2 SYS_close_range SYS_fsync SYS_fdatasync SYS_sync
    SYS_syncfs SYS_sync_file_range SYS_fallocate SYS_fadvise64 SYS_truncate SYS_ftruncate SYS_newfstatat SYS_statx
    SYS_statfs SYS_fstatfs SYS_getdents64 SYS_getcwd SYS_chdir SYS_fchdir SYS_umask SYS_mkdirat SYS_unlinkat SYS_renameat
    SYS_renameat2 SYS_linkat SYS_symlinkat SYS_readlinkat SYS_faccessat SYS_faccessat2 SYS_fchmod SYS_fchmodat SYS_fchown
    SYS_fchownat SYS_utimensat SYS_getxattr SYS_lgetxattr SYS_fgetxattr SYS_listxattr SYS_llistxattr SYS_flistxattr
    SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_removexattr SYS_lremovexattr SYS_fremovexattr
    SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait
    SYS_epoll_pwait2 SYS_ppoll SYS_pselect6 SYS_eventfd2 SYS_signalfd4 SYS_timerfd_create SYS_timerfd_settime
    SYS_timerfd_gettime SYS_nanosleep SYS_clock_nanosleep SYS_clock_gettime SYS_clock_getres SYS_gettimeofday SYS_times
    SYS_getitimer SYS_setitimer SYS_timer_create SYS_timer_settime SYS_timer_gettime SYS_timer_getoverrun SYS_timer_delete
    SYS_connect SYS_accept SYS_accept4 SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_sendmmsg SYS_recvmmsg
    SYS_shutdown SYS_bind SYS_listen SYS_getsockname SYS_getpeername SYS_setsockopt SYS_getsockopt SYS_shmget SYS_shmat
    SYS_shmctl SYS_shmdt SYS_semget SYS_semop SYS_semtimedop SYS_semctl SYS_execve SYS_execveat SYS_exit SYS_exit_group
    SYS_wait4 SYS_waitid SYS_kill SYS_tkill SYS_tgkill SYS_pidfd_send_signal SYS_futex SYS_futex_waitv SYS_set_robust_list
    SYS_get_robust_list SYS_set_tid_address SYS_restart_syscall SYS_rseq SYS_membarrier SYS_getpid SYS_getppid SYS_gettid
    SYS_getpgid SYS_setpgid SYS_getsid SYS_setsid SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_getresuid SYS_getresgid
    SYS_getgroups SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid SYS_setresgid SYS_setgroups SYS_setfsuid
    SYS_setfsgid SYS_capget SYS_capset SYS_prctl SYS_getrlimit SYS_setrlimit SYS_prlimit64 SYS_getrusage SYS_getpriority
    SYS_setpriority SYS_sched_yield SYS_sched_getaffinity SYS_sched_setaffinity SYS_sched_getparam SYS_sched_setparam
    SYS_sched_getscheduler SYS_sched_setscheduler SYS_sched_getattr SYS_sched_setattr SYS_sched_get_priority_max
    SYS_sched_get_priority_min SYS_sched_rr_get_interval SYS_getcpu SYS_get_mempolicy SYS_mlock SYS_mlock2 SYS_munlock
    SYS_mlockall SYS_munlockall SYS_uname SYS_sysinfo SYS_getrandom
};

/// What newer kinds of machine have only in its general form.
#[cfg(target_arch = "x86_64")]
pub(super) const ALLOWED_HERE: &[(&str, libc::c_long)] = calls! {
    SYS_open SYS_creat SYS_stat SYS_lstat SYS_access SYS_poll SYS_select SYS_pipe SYS_dup2 SYS_pause SYS_alarm SYS_time
    SYS_fork SYS_vfork SYS_getpgrp SYS_arch_prctl SYS_getdents SYS_rename SYS_mkdir SYS_rmdir SYS_link SYS_unlink
    SYS_symlink SYS_readlink SYS_chmod SYS_chown SYS_lchown SYS_utime SYS_utimes SYS_futimesat SYS_epoll_create
    SYS_epoll_wait SYS_signalfd SYS_eventfd
};
#[cfg(not(target_arch = "x86_64"))]
pub(super) const ALLOWED_HERE: &[(&str, libc::c_long)] = &[];

/// Does not exist inside: the C library and wasmtime take their other way, which EPERM would not make them take.
pub(super) const ABSENT: &[(&str, libc::c_long)] = calls! {
    SYS_clone3 SYS_memfd_create
};

/// The newest that was looked at. What a later kernel brings does not exist inside either.
pub(super) const NEWEST: libc::c_long = libc::SYS_set_mempolicy_home_node;

/// New namespaces, bit by bit. `CLONE_NEWTIME` shares its bit with the exit signal, and only `clone3` and `unshare` take it.
pub(super) const NAMESPACES: &[(&str, libc::c_int)] = &[
    ("NEWNS", libc::CLONE_NEWNS),
    ("NEWCGROUP", libc::CLONE_NEWCGROUP),
    ("NEWUTS", libc::CLONE_NEWUTS),
    ("NEWIPC", libc::CLONE_NEWIPC),
    ("NEWUSER", libc::CLONE_NEWUSER),
    ("NEWPID", libc::CLONE_NEWPID),
    ("NEWNET", libc::CLONE_NEWNET),
];

pub(super) const SOCKET_FAMILIES: &[(&str, libc::c_int)] =
    &[("UNIX", libc::AF_UNIX), ("INET", libc::AF_INET), ("INET6", libc::AF_INET6), ("NETLINK", libc::AF_NETLINK)];

/// Questions about a terminal, and what libraries ask of pipes and sockets.
pub(super) const IOCTLS: &[(&str, u64)] = &[
    ("TCGETS", libc::TCGETS),
    ("TCGETS2", 0x802c_542a),
    ("TIOCGWINSZ", libc::TIOCGWINSZ),
    ("FIONREAD", libc::FIONREAD),
    ("FIONBIO", libc::FIONBIO),
    ("FIOCLEX", libc::FIOCLEX),
];
