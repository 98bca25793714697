# The toplevel of a host's machine with a delta: a generation that the machine can switch to.
#
# For a VM it is the toplevel of the VM variant: the host's own lacks the VM's file systems, and a switch to
# it would unmount the store.
{ safe, machineOf, request }:
hosts:
let
  machine = machineOf hosts.${request.host};
in
if !(hosts ? ${request.host}) then
  {
    problem = "no-host";
    known = builtins.attrNames hosts;
  }
else if machine ? problem then
  { inherit (machine) problem; }
else
  { derivation = safe.text machine.toplevel.drvPath; }
