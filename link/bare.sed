# A mangled name without the hashes that a build gives anew.
s/17h[0-9a-f]{16}E.*//
s/Cs[0-9A-Za-z]+_/C_/g
