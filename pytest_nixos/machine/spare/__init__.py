"""A machine that another process has woken and stopped, taken over by a run that wants one."""
