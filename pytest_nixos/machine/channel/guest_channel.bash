# The guest's end of the root command channel: bash, head, dd, cat, mkdir, chmod and nothing else.
#
# The unit that starts this script as root should set IgnoreSIGPIPE=false (or every command runs with SIGPIPE ignored) and a PATH with
# coreutils. It serves each port whose name begins with "pytest-nixos.": "control" kills commands, any other one runs them. A port is a
# virtserialport, or two named pipes (DEVICE.in, DEVICE.out) in a container. It is read from fd 3 and written to by $pn_wire.
#
# Starting a program costs 25 to 35 ms in a guest that QEMU 7.2 emulates, a fork about 9: so no step here starts a program unless much data
# moves, and the process that will become a command is forked before the command comes and takes it from the port itself.
#
# Lines on a port (N session nonce, chosen by the host machine; K serial number of the request; sizes in bytes):
#   to the guest    S N                    begin a session; whatever came before is void
#                   R N K size insize      run a command; the command's text and its stdin follow
#                   K N channel K          (control only) kill that request's process group
#   from the guest  H agent                a server has opened this port: requests before this line are lost
#                   S N version agent      session begun
#                   A N K status out err F the answer, with byte 036 for newlines; stdout and stderr follow, then "E K". F is "full" if
#                                          output was lost, "line" if byte 036 stands for each newline of the output, else "-"
#                   X N K reason           refused, nothing was run: "session", "spool" or "broken"
#                   K N channel K word     "killed" or "absent"

# Read as an argument, a script leaves no name and line of its own in the messages of commands: "bash: line 1: ...".
[[ -z ${BASH_SOURCE[0]} ]] || exec "$BASH" -c "$(<"${BASH_SOURCE[0]}")" bash

pn_version=1
pn_ports=${PYTEST_NIXOS_PORTS:-/sys/class/virtio-ports}
pn_devices=${PYTEST_NIXOS_DEVICES:-/dev}
pn_spool=${PYTEST_NIXOS_SPOOL:-/run/pytest-nixos}
pn_environment_file=${PYTEST_NIXOS_ENVIRONMENT:-/etc/set-environment}
pn_path=$PATH
pn_small=16384
pn_short_text=4096

pn_serial=0
umask 0022
pn_head=$(type -P head) && pn_dd=$(type -P dd) && mkdir -p "$pn_spool" && chmod 0700 "$pn_spool" || exit 1
read -r pn_agent </proc/sys/kernel/random/uuid
read -r pn_oom_score </proc/self/oom_score_adj

# A pipe that never has data: `read` on it with a timeout sleeps without starting a program.
exec {pn_idle}<> <(:)
pn_nap() { read -r -t "$1" -u "$pn_idle" _; }

# Become what root has after a login, whatever the service manager or an older generation had set.
pn_load_environment() {
  local pn_name
  for pn_name in $(compgen -e); do unset "$pn_name"; done
  unset LC_ALL TMPDIR BASH_COMPAT
  export HOME=/root USER=root LOGNAME=root SHELL=$BASH PATH=$pn_path TERM=dumb
  [[ -z $pn_environment ]] || exec {pn_environment}<&-
  # The file stays open, so its inode cannot be used again: -ef then tells for certain whether a switch has replaced it.
  if [[ -r $pn_environment_file ]]; then
    exec {pn_environment}<"$pn_environment_file"
    # shellcheck disable=SC1090 # the host's own file
    . "$pn_environment_file" >/dev/null 2>&1
  else
    exec {pn_environment}</dev/null
    # shellcheck disable=SC1091 # the host's own file
    [[ ! -r /etc/profile ]] || . /etc/profile >/dev/null 2>&1
  fi
  export LANG=${LANG:-C.UTF-8}
  # The server itself counts bytes, and keeps its temporary files in the spool; commands get the host's values back.
  pn_command_lc_all=${LC_ALL-} pn_command_tmpdir=${TMPDIR-}
  export -n LC_ALL=C TMPDIR="$pn_spool"
  # bash 5.1 and later give a short here-string through a pipe unless they imitate 5.0 (pn_fresh_file needs a real file).
  BASH_COMPAT=5.0
}

pn_environment_is_current() {
  if [[ -e $pn_environment_file ]]; then
    [[ $pn_environment_file -ef /proc/self/fd/$pn_environment ]]
  else
    [[ /dev/null -ef /proc/self/fd/$pn_environment ]]
  fi
}

# Open the port of this server and say so. The line waits in the kernel until the host machine is there.
pn_open_port() {
  if [[ -p $pn_devices/$pn_device.in ]]; then
    until exec 3<>"$pn_devices/$pn_device.in" {pn_wire}<>"$pn_devices/$pn_device.out"; do pn_nap 0.1; done
  else
    until exec 3<>"$pn_devices/$pn_device"; do pn_nap 0.1; done
    exec {pn_wire}>&3
  fi
  pn_session=-
  printf '\nH %s\n' "$pn_agent" >&"$pn_wire"
}

# Read one line into the named variables. A port reads as ended while nobody is connected on the host machine; nobody waits then for a
# parent that is gone.
pn_read_line() {
  local pn_pause=0.02
  until IFS=' ' read -r -u 3 "$@"; do
    [[ -e /proc/$pn_parent ]] || exit
    pn_nap "$pn_pause"
    pn_pause=0.1
  done
}

pn_begin_session() {
  pn_session=$1
  printf '\nS %s %s %s\n' "$1" "$pn_version" "$pn_agent" >&"$pn_wire"
}

# Wait for a request: leaves its text in pn_text and its stdin open as fd 8. Fails if it was refused.
pn_receive() {
  local pn_word pn_nonce pn_size pn_insize
  while :; do
    pn_read_line pn_word pn_nonce pn_serial pn_size pn_insize _
    case $pn_word in
      S) pn_begin_session "$pn_nonce" ;;
      R)
        [[ $pn_serial,$pn_size,$pn_insize == +([0-9]),+([0-9]),+([0-9]) ]] || continue
        if [[ $pn_nonce != "$pn_session" ]]; then
          printf '\nX %s %s session\n' "$pn_nonce" "$pn_serial" >&"$pn_wire"
          continue
        fi
        ((pn_insize == 0)) || pn_publish_job receiving
        pn_receive_text "$pn_size" || pn_refuse broken || return
        [[ $pn_room == yes ]] && pn_receive_stdin "$pn_insize" || pn_refuse spool || return
        pn_publish_job running
        return
        ;;
    esac
  done
}

pn_refuse() {
  printf '\nX %s %s %s\n' "$pn_session" "$pn_serial" "$1" >&"$pn_wire"
  return 1
}

# `read` takes a port byte by byte, so long texts come by a program. The host machine sends none that ends in a newline.
pn_receive_text() {
  if (($1 == 0)); then
    # `read -N 0` would wait for a byte.
    pn_text=
  elif (($1 <= pn_short_text)); then
    IFS= read -r -N "$1" -u 3 pn_text
  else
    pn_text=$(exec "$pn_head" -c "$1" <&3)
  fi
  ((${#pn_text} == $1))
}

pn_receive_stdin() {
  if (($1 == 0)); then
    exec 8</dev/null
    return
  fi
  local pn_got
  exec 8<<<'' && : >/proc/self/fd/8 && exec 9>>/proc/self/fd/8 || return
  "$pn_head" -c "$1" <&3 >&9
  read -r _ pn_got </proc/self/fdinfo/9
  exec 9>&-
  ((pn_got == $1))
}

# Files that no other command ever had: a process that outlives its command goes on writing into nothing. A here-string is an unlinked
# temporary file, which costs no `rm`. fd 4 and 5 read stdout and stderr, 6 and 7 append to them.
pn_fresh_files() {
  exec 4<&- 5<&- 6>&- 7>&-
  # A full /run must not keep anybody from looking into it.
  for TMPDIR in "$pn_spool" /dev/shm /tmp /var/tmp; do
    if exec 4<<<'' && : >/proc/self/fd/4 && exec 6>>/proc/self/fd/4 && exec 5<<<'' && : >/proc/self/fd/5 && exec 7>>/proc/self/fd/5; then
      return
    fi
  done
  return 1
}

# Tell the parent and the control server about this process, a group leader, and its request. The line keeps its length and the file its
# page, so that a full spool does not matter.
pn_publish_job() { printf '%-100s\n' "$pn_serial $BASHPID $pn_session $1" 1<>"$pn_spool/$pn_channel.job"; }

# Do ahead of the request what does not depend on it. A fork shares memory until it is written to, and each first write costs; so bash
# does here once what it will do again when the time counts.
pn_prepare() {
  set +m
  pn_publish_job idle
  exec 4<&- 5<&-
  ((pn_oom_score == 0)) || echo 0 >/proc/self/oom_score_adj
  cd /
  pn_text=warm
  pn_environment_is_current
  [[ $pn_text,0 == +([0-9]),+([0-9]) || $pn_text == *[!a-z]* || $pn_builtins == *" $pn_text "* ]]
  hash "$pn_text"
  eval 'unset pn_text; true'
}

# Turn the process that received a request into what `bash -c` gives.
pn_become_command() {
  local pn_word
  exec <&8 >&6 2>&7 3>&- {pn_wire}>&- 6>&- 7>&- 8<&-
  if ! pn_environment_is_current; then pn_load_environment; fi
  exec {pn_idle}<&- {pn_environment}<&-
  # A single program needs no second process.
  if ((${#pn_text} < 1000)) && [[ $pn_text != *[!a-zA-Z0-9_./:=@%,+\ -]* ]]; then
    pn_word=${pn_text%% *}
    if [[ $pn_word != *=* && $pn_builtins != *" $pn_word "* ]] && hash "$pn_word" 2>/dev/null; then
      # shellcheck disable=SC2086 # words of letters, digits and the like
      [[ $pn_word != cat ]] || pn_print_file ${pn_text#cat }
      pn_text="exec $pn_text"
    fi
  fi
  unset LC_ALL TMPDIR BASH_COMPAT
  [[ -z $pn_command_lc_all ]] || export LC_ALL=$pn_command_lc_all
  [[ -z $pn_command_tmpdir ]] || export TMPDIR=$pn_command_tmpdir
  case $pn_text in
    # Opened by name, stdout and stderr must be pipes: a file would lose what was written before.
    *'/dev/std'* | *'/dev/fd/'* | *'/proc/self/fd'*) pn_run_piped ;;
    # These tell a subshell from a shell of its own. One argument of execve(2) holds 128 KiB.
    *'$$'* | *'{$}'* | *PPID* | *BASH_* | *BASHPID*) ((${#pn_text} > 120000)) || exec "$BASH" -c "$pn_text" ;;
  esac
  unset -f "${pn_functions[@]}"
}

# Do what `cat PATH` does, the most frequent of all reads, without starting it; return where only cat itself can: a file that is no
# regular one, has a NUL, is long, tells of the process that reads it, or cannot be read to its end (bash has then said so on stderr).
pn_print_file() {
  local pn_content pn_complaint
  [[ $1 != -- ]] || shift
  (($# == 1)) && [[ $1 == /* && $1 != /proc/*self/* && -f $1 && -r $1 ]] || return
  ! IFS= read -r -d '' -n "$pn_small" pn_content <"$1" || return
  read -r _ pn_complaint </proc/self/fdinfo/2
  if ((pn_complaint)); then
    : >/proc/self/fd/2
    return
  fi
  printf %s "$pn_content"
  exit
}

pn_run_piped() {
  local pn_out pn_err pn_out_copier pn_err_copier pn_status
  exec {pn_out}> >(exec cat)
  pn_out_copier=$!
  exec {pn_err}> >(exec cat >&2)
  pn_err_copier=$!
  "$BASH" -c "$pn_text" >&"$pn_out" 2>&"$pn_err" {pn_out}>&- {pn_err}>&-
  pn_status=$?
  exec {pn_out}>&- {pn_err}>&-
  wait "$pn_out_copier" "$pn_err_copier"
  exit "$pn_status"
}

# Wait until child $1 has ended, and leave its status in pn_status. Under job control a stop ends `wait` too. `wait -f` is no help: bash 5.2
# then looks for a stop in the record of the child that it has just freed, and where the allocator has left a certain byte there, in one
# shell of 256, it never returns (wait_for_single_pid of jobs.c).
pn_await_end() {
  wait "$1"
  pn_status=$?
  while ((pn_status > 128)) && pn_is_child "$1"; do
    pn_nap 0.05
    wait "$1"
    pn_status=$?
  done
}

# Whether process $1 is a child of this one: its line is "PID (NAME) STATE PARENT ...", and a name may hold anything.
pn_is_child() {
  local pn_stat=
  IFS= read -r -d '' pn_stat 2>/dev/null <"/proc/$1/stat"
  [[ ${pn_stat##*) } == ?" $BASHPID "* ]]
}

# Wait for process $1, which receives and runs a request, and send what it gave.
pn_answer() {
  local pn_status pn_phase pn_out pn_err pn_out_size pn_err_size pn_flag=-
  pn_await_end "$1"
  read -r pn_serial _ pn_session pn_phase <"$pn_spool/$pn_channel.job"
  if [[ $pn_phase != running ]]; then
    # Opening the port anew throws away the rest of the request.
    exec 3>&- {pn_wire}>&-
    pn_open_port
    return
  fi
  pn_finish_file 6 pn_out_size || pn_flag=full
  pn_finish_file 7 pn_err_size || pn_flag=full
  if ((pn_out_size + pn_err_size <= pn_small)) && pn_slurp 4 "$pn_out_size" pn_out && pn_slurp 5 "$pn_err_size" pn_err; then
    # Bash writes at each newline, and a write to a port costs as much as a fork on a busy machine: other bytes stand for newlines.
    if [[ $pn_flag == - && $pn_out$pn_err != *$'\036'* ]]; then
      pn_flag=line
      pn_out=${pn_out//$'\n'/$'\036'} pn_err=${pn_err//$'\n'/$'\036'}
    fi
    pn_send_head "$pn_out$pn_err"$'\036'"E $pn_serial"$'\n'
  else
    pn_send_head ''
    pn_copy 4 "$pn_out_size"
    pn_copy 5 "$pn_err_size"
    printf '\036E %s\n' "$pn_serial" >&"$pn_wire"
  fi
  pn_environment_is_current || pn_load_environment
}

pn_send_head() {
  printf '\036A %s %s %s %s %s %s\036%s' "$pn_session" "$pn_serial" "$pn_status" "$pn_out_size" "$pn_err_size" "$pn_flag" "$1" >&"$pn_wire"
}

# Find the size of the file that fd $1 appends to by appending one more byte: the offset is then its end, even if the command had opened
# the file a second time. When the spool is full the byte does not fit either, because space comes by the page.
pn_finish_file() {
  local pn_offset pn_extra=1
  printf . >&"$1" || pn_extra=0
  read -r _ pn_offset <"/proc/self/fdinfo/$1"
  printf -v "$2" %s "$((pn_offset - pn_extra))"
  ((pn_extra))
}

# Read a file of $2 bytes from fd $1 into the variable $3; fails if it holds a NUL, which no variable can.
pn_slurp() {
  printf -v "$3" ''
  (($2 == 0)) && return
  IFS= read -r -d '' -n "$2" -u "$1" "$3"
  ((${#3} > 0)) && local -n pn_slurped=$3 && ((${#pn_slurped} == $2))
}

pn_copy() {
  (($2 == 0)) || "$pn_dd" bs=128K count="$2" iflag=count_bytes,fullblock status=none <"/proc/self/fd/$1" >&"$pn_wire"
}

pn_serve_control() {
  local pn_word pn_nonce pn_target pn_target_serial
  while :; do
    pn_read_line pn_word pn_nonce pn_target pn_target_serial _
    case $pn_word in
      S) pn_begin_session "$pn_nonce" ;;
      K)
        [[ $pn_target,$pn_target_serial == +([0-9]),+([0-9]) ]] || continue
        printf '\nK %s %s %s %s\n' "$pn_nonce" "$pn_target" "$pn_target_serial" "$(pn_kill)" >&"$pn_wire"
        ;;
    esac
  done
}

# End the process group of a request: SIGTERM, one second of grace, SIGKILL.
pn_kill() {
  local pn_job_serial pn_group pn_phase
  read -r pn_job_serial pn_group _ pn_phase <"$pn_spool/$pn_target.job"
  if [[ $pn_job_serial != "$pn_target_serial" || $pn_phase == idle ]]; then
    echo absent
    return
  fi
  kill -TERM -- "-$pn_group"
  kill -CONT -- "-$pn_group"
  for _ in {1..50}; do
    kill -0 -- "-$pn_group" || break
    pn_nap 0.02
  done
  kill -KILL -- "-$pn_group"
  echo killed
}

# What a server that was killed left behind still holds its port.
pn_end_orphan() {
  local pn_group
  read -r _ pn_group _ <"$pn_spool/$pn_channel.job"
  [[ -z $pn_group ]] || kill -KILL -- "-$pn_group" 2>/dev/null
}

# Learn the channels that exist: pn_found[channel] is the name of its device.
pn_find_ports() {
  local pn_entry pn_name
  for pn_entry in "$pn_ports"/*; do
    { read -r pn_name <"$pn_entry/name"; } 2>/dev/null || continue
    [[ $pn_name != pytest-nixos.* ]] || pn_found[${pn_name#pytest-nixos.}]=${pn_entry##*/}
  done
}

declare -A pn_found=() pn_server=()
pn_environment=
pn_load_environment
pn_builtins=" $(compgen -A builtin -A keyword) "
pn_builtins=${pn_builtins//$'\n'/ }
mapfile -t pn_functions < <(compgen -A function pn_)
pn_pause=0.05
while :; do
  pn_find_ports
  for pn_channel in "${!pn_found[@]}"; do
    if [[ -n ${pn_server[$pn_channel]} ]]; then
      ! kill -0 "${pn_server[$pn_channel]}" 2>/dev/null || continue
      pn_end_orphan
    else
      # From an earlier run of this script.
      : >"$pn_spool/$pn_channel.job"
    fi
    (
      pn_device=${pn_found[$pn_channel]}
      # Bash tells about jobs that died by a signal; the answer says it better.
      exec 2>/dev/null
      pn_parent=$BASHPID
      pn_open_port
      [[ $pn_channel != control ]] || pn_serve_control
      # Gives each request a process group of its own.
      set -m
      while :; do
        pn_room=no
        pn_fresh_files && pn_room=yes
        (
          pn_prepare
          pn_receive || exit
          pn_become_command
          # The command must not see the server's variables.
          eval 'unset "${!pn_@}"; '"$pn_text"
        ) &
        pn_answer $!
      done
    ) &
    pn_server[$pn_channel]=$!
    pn_pause=0.05
  done
  pn_nap "$pn_pause"
  # Ports appear one by one in the first second; later only a server that died has to be replaced.
  [[ -n ${pn_server[control]} && ${#pn_server[@]} -gt 1 ]] && pn_pause=0.5
done
