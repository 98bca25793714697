# Under memory pressure systemd-oomd ends what presses, before the kernel ends something at random.
{
  systemd.oomd = {
    enable = true;
    enableRootSlice = true;
    enableUserSlices = true;
  };
}
