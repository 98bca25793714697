# A node of a NixOS test as a host: what host-config.nix and machine.nix read of one.
#
# The test framework hands out a node's evaluated config and nothing else (`nodes.<name>` of 23.05 and newer): it cannot be extended, and
# nobody knows where its options are set. It is a VM already, with a root shell of the test driver's, so it needs nothing of ours.
config: {
  inherit config;
  options = { };

  # As machine.nix returns it.
  asMachine = {
    backend = "vm";
    inherit config;
    package = config.system.build.vm;
    toplevel = config.system.build.toplevel;
    program = "bin/run-${config.system.name}-vm";
    withoutBootLoader = false;
    snapshot = {
      refusal = "it is a node of a NixOS test";
      changed = { };
    };
  };
}
