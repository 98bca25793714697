# A program for the machine that builds or starts hosts: it runs on the tree's libraries, whatever distribution is around it.
{ shell }:
name: path: arguments: ''
  cat > $out/bin/${name} <<EOF
  #!${shell}
  exec -a ${name} $debian/usr/lib64/ld-linux-x86-64.so.2 --library-path $debian/usr/lib/x86_64-linux-gnu --argv0 ${name} ${path} ${arguments} "\$@"
  EOF
  chmod +x $out/bin/${name}
''
