{ lib, ... }: { isSpecialisation = lib.mkForce true; specialisation = lib.mkOverride 0 { }; }
