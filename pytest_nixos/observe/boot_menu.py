"""What a guest's boot loader starts if nobody chooses: bash that every reader of the boot menu
includes.

systemd-boot (man pages loader.conf(5) and systemd-boot(7), and the Boot Loader Specification):
``preferred`` goes before ``default``; both are shell patterns for an entry's id, which is its
file's name without the boot counter; the menu's order is by counter (what has no tries left comes
last), ``sort-key``, ``version`` from new to old. nixpkgs names entries ``nixos-generation-N.conf``
up to 26.05 and ``nixos-HASH.conf`` from 26.11 on, with ``preferred`` where boots are counted, so an
entry is known by the toplevel in its ``options`` and never by its name. GRUB and extlinux: the
first entry is the default.
"""

from __future__ import annotations

__all__ = ["BOOT_MENU", "SEPARATOR"]

#: Between the fields of a line that the functions print.
SEPARATOR = "\x1f"

#: Defines ``boot_default``, which prints loader, path, entry and toplevel, and ``boot_entry_of
#: TOPLEVEL``, which prints the id of the entry that starts a toplevel, nothing without one.
BOOT_MENU = r"""
boot_places=(/boot /efi /boot/efi)
boot_entries() {
  local place file id bad key version options word rest init
  for place in "${boot_places[@]}"; do
    for file in "$place"/loader/entries/*.conf; do
      [ -r "$file" ] || continue
      id=${file##*/} id=${id%.conf} bad=0 key= version= options= init=
      if [[ $id =~ ^(.*)\+([0-9]+)(-[0-9]+)?$ ]]; then
        id=${BASH_REMATCH[1]}
        [ "${BASH_REMATCH[2]}" -gt 0 ] || bad=1
      fi
      while read -r word rest; do
        case $word in sort-key) key=$rest ;; version) version=$rest ;; options) options+=" $rest" ;; esac
      done <"$file"
      [[ $options =~ [[:space:]]init=([^[:space:]]+)/init([[:space:]]|$) ]] && init=${BASH_REMATCH[1]}
      printf '%s\x1f%s\x1f%s\x1f%s\x1f%s\n' "$bad" "${key:-~}" "$version" "$id.conf" "$init"
    done
  done | LC_ALL=C sort -t $'\x1f' -k1,1 -k2,2 -k3,3Vr -k4,4Vr
}
boot_setting() {
  local word rest value=
  while read -r word rest; do [ "$word" != "$1" ] || value=$rest; done <"$2"
  printf '%s' "$value"
}
boot_choice() {
  local conf=$1 entries name pattern bad key version id init
  entries=$(boot_entries)
  for name in preferred default; do
    pattern=$(boot_setting $name "$conf")
    case $pattern in '') continue ;; @*) return ;; esac
    while IFS=$'\x1f' read -r bad key version id init; do
      # Boot counting gave up an entry without tries: it is not preferred any more.
      [ $name = default ] || [ "$bad" = 0 ] || continue
      # shellcheck disable=SC2053 # a pattern by intention
      if [[ $id == $pattern || ${id%.conf} == $pattern ]]; then printf '%s\x1f%s' "$id" "$init"; return; fi
    done <<<"$entries"
  done
  IFS=$'\x1f' read -r bad key version id init <<<"$entries"
  printf '%s\x1f%s' "$id" "$init"
}
boot_default() {
  local place file choice
  for place in "${boot_places[@]}"; do
    file=$place/loader/loader.conf
    [ -r "$file" ] || continue
    choice=$(boot_choice "$file")
    printf 'systemd-boot\x1f%s\x1f%s\n' "$file" "${choice:-$'\x1f'}"
    return
  done
  for place in grub:grub/grub.cfg extlinux:extlinux/extlinux.conf; do
    file=${boot_places[0]}/${place#*:}
    [ -r "$file" ] || continue
    choice=$(sed -n 's/.*[[:space:]]init=\([^[:space:]]*\)\/init.*/\1/p' "$file" | head -n 1)
    printf '%s\x1f%s\x1f\x1f%s\n' "${place%%:*}" "$file" "$choice"
    return
  done
}
boot_entry_of() {
  local bad key version id init
  while IFS=$'\x1f' read -r bad key version id init; do
    if [ "$init" = "$1" ]; then printf '%s' "$id"; return; fi
  done <<<"$(boot_entries)"
}
"""
