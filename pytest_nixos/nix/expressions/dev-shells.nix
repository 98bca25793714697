# Development shells. Applied to a flake's `devShells`; `request` is { system; shell; } for one shell, or { } for the names of all.
{ safe, request }:
shells:
let
  shell = shells.${request.system}.${request.shell};

  # Derivations that a shell puts on PATH; what is no derivation (a path, an environment) has no programs to look for.
  packages = builtins.filter (value: builtins.isAttrs value && (value.type or "") == "derivation") (
    safe.get shell [ "nativeBuildInputs" ] [ ]
    ++ (
      if safe.get shell [ "strictDeps" ] false == true then [ ] else safe.get shell [ "buildInputs" ] [ ]
    )
  );

  tool = package: {
    name = safe.text (package.name or "");
    mainProgram = safe.get package [ "meta" "mainProgram" ] null;
    outputs = map (output: safe.text package.${output}.outPath) (package.outputs or [ "out" ]);
  };

  # As a derivation's attribute becomes text: true is "1", false and null are "", lists are joined by blanks.
  variable =
    name:
    let
      value = builtins.tryEval (toString shell.drvAttrs.${name});
    in
    if value.success then safe.text value.value else null;

  isVariable = name: builtins.match "[A-Z_][A-Z0-9_]*" name != null && builtins.match "__.*" name == null;
  names = builtins.filter isVariable (builtins.attrNames (safe.get shell [ "drvAttrs" ] { }));
in
if request ? shell then
  {
    derivation = safe.text shell.drvPath;
    tools = map tool packages;
    variables = builtins.listToAttrs (map (name: { inherit name; value = variable name; }) names);
  }
else
  builtins.mapAttrs (_: builtins.attrNames) shells
