# QEMU runs on the machine that starts a VM.
{ runCommand, hosted }:
runCommand "qemu-10.0" { pname = "qemu"; version = "10.0"; meta.mainProgram = "qemu-system-x86_64"; } ''
  mkdir -p $out/bin $out/libexec
  # Without the folder of modules that is compiled in: another distribution's QEMU may have its own there, and these two would not go together.
  PYTHONHOME=$debian/usr tree python3 -S -c 'import sys
  program = open(sys.argv[1], "rb").read()
  folder = b"/usr/lib/x86_64-linux-gnu/qemu\0"
  assert folder in program
  open(sys.argv[2], "wb").write(program.replace(folder, b"/none".ljust(len(folder), b"\0")))' $debian/usr/bin/qemu-system-x86_64 $out/libexec/qemu-system-x86_64
  chmod +x $out/libexec/qemu-system-x86_64
  ${hosted "qemu-system-x86_64" "$out/libexec/qemu-system-x86_64" "-L $debian/usr/share/qemu -L $debian/usr/share/seabios -L $debian/usr/lib/ipxe/qemu"}
  ln -s qemu-system-x86_64 $out/bin/qemu-kvm
  ${hosted "qemu-img" "$debian/usr/bin/qemu-img" ""}
''
