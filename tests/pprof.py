# SPDX-License-Identifier: MIT
"""Reads profiles of pprof, for e2e_*.sh. pprof.py FILE: the calls of each event with a stack, innermost first."""
import sys


def fields(data):
    at = 0
    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]; at += 1
            value |= (byte & 127) << shift; shift += 7
            if byte < 128: return value
    while at < len(data):
        key = varint()
        if key & 7 == 0: yield key >> 3, varint()
        elif key & 7 == 2:
            n = varint(); yield key >> 3, data[at:at + n]; at += n
        else: raise SystemExit("wire type %d" % (key & 7))
    assert at == len(data)


def packed(data):
    out, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 127) << shift; shift += 7
        if byte < 128: out.append(value); value = shift = 0
    return out


def main():
    profile = list(fields(open(sys.argv[1], "rb").read()))
    strings = [v.decode() for k, v in profile if k == 6]
    functions = {dict(fields(v))[1]: strings[dict(fields(v))[2]] for k, v in profile if k == 5}
    calls = {}
    for k, v in profile:
        if k == 4:
            lines = [dict(fields(line))[1] for key, line in fields(v) if key == 4]
            calls[dict((a, b) for a, b in fields(v) if a != 4)[1]] = [functions[f] for f in lines]
    for k, v in profile:
        if k == 2:
            sample = dict((a, b) for a, b in fields(v) if a != 3)
            for _ in range(packed(sample[2])[3]):
                print(" <- ".join(name for location in packed(sample.get(1, b"")) for name in calls[location]))


if __name__ == "__main__":
    main()
