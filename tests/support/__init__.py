"""What several tests play with: a fake runner and a fake machine."""
