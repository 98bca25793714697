# Kernel settings of a machine that holds large models in memory and faces a network.
{
  boot.kernel.sysctl = {
    # Compressed swap is faster than reading a model from disk again.
    "vm.swappiness" = 150;
    "vm.vfs_cache_pressure" = 50;
    "vm.page-cluster" = 0;
    "vm.dirty_ratio" = 10;
    "vm.dirty_background_ratio" = 5;

    "kernel.kptr_restrict" = 2;
    "kernel.dmesg_restrict" = 1;
    "kernel.unprivileged_bpf_disabled" = 1;
    "kernel.yama.ptrace_scope" = 1;
    "kernel.sysrq" = 0;
    "kernel.randomize_va_space" = 2;
    "fs.protected_hardlinks" = 1;
    "fs.protected_symlinks" = 1;
    "fs.protected_fifos" = 2;
    "fs.protected_regular" = 2;
    "fs.suid_dumpable" = 0;
    "net.core.bpf_jit_harden" = 2;
  };
}
