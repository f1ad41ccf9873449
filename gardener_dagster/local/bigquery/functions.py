"""Functions of GoogleSQL that DuckDB has not, or has otherwise."""

from gardener_dagster.local.bigquery.database import Connection

MACROS = (
    # Times as GoogleSQL writes them in JSON; also in a STRING that looks just like DuckDB's.
    r"""CREATE OR REPLACE MACRO bq_to_json_string(x) AS regexp_replace(CAST(to_json(x) AS VARCHAR),
      '"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d(\.\d+)?)\+00"', '"\1T\2Z"', 'g')""",
    "CREATE OR REPLACE MACRO ieee_divide(x, y) AS CAST(x AS DOUBLE) / CAST(y AS DOUBLE)",
    "CREATE OR REPLACE MACRO safe_add(x, y) AS TRY(x + y)",
    "CREATE OR REPLACE MACRO safe_subtract(x, y) AS TRY(x - y)",
    "CREATE OR REPLACE MACRO safe_multiply(x, y) AS TRY(x * y)",
    "CREATE OR REPLACE MACRO safe_negate(x) AS TRY(-x)",
    "CREATE OR REPLACE MACRO code_points_to_string(x) AS"
    " array_to_string(list_transform(x, lambda c: chr(c::INTEGER)), '')",
)

_K0, _K1, _K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F
_MASK = 2**64 - 1


def install(connection: Connection, *, fingerprint: bool = False) -> None:
    """Makes the functions known to a database.

    Args:
        connection: to it.
        fingerprint: FARM_FINGERPRINT, which runs in Python, too.
    """
    for macro in MACROS:
        connection.execute(macro)
    if fingerprint:
        connection.create_function("farm_fingerprint", _fingerprint, ["VARCHAR"], "BIGINT")


def _fingerprint(text: str) -> int:
    value = farm_fingerprint(text.encode())
    return value - 2**64 if value >= 2**63 else value


def farm_fingerprint(data: bytes) -> int:
    """FarmHash's Fingerprint64, unsigned: https://github.com/google/farmhash."""
    size = len(data)
    if size <= 16:
        return _upto16(data)
    if size <= 32:
        return _upto32(data)
    if size <= 64:
        return _upto64(data)
    return _longer(data)


def _fetch(data: bytes, at: int, width: int = 8) -> int:
    return int.from_bytes(data[at : at + width], "little")


def _rotate(value: int, by: int) -> int:
    return ((value >> by) | (value << (64 - by))) & _MASK if by else value


def _mix(value: int) -> int:
    return value ^ (value >> 47)


def _hash16(one: int, other: int, factor: int) -> int:
    a = _mix(((one ^ other) * factor) & _MASK)
    b = _mix(((other ^ a) * factor) & _MASK)
    return (b * factor) & _MASK


def _upto16(data: bytes) -> int:
    size = len(data)
    factor = (_K2 + size * 2) & _MASK
    if size >= 8:
        a = (_fetch(data, 0) + _K2) & _MASK
        b = _fetch(data, size - 8)
        c = (_rotate(b, 37) * factor + a) & _MASK
        d = ((_rotate(a, 25) + b) * factor) & _MASK
        return _hash16(c, d, factor)
    if size >= 4:
        a = _fetch(data, 0, 4)
        return _hash16((size + (a << 3)) & _MASK, _fetch(data, size - 4, 4), factor)
    if size > 0:
        y = data[0] + (data[size >> 1] << 8)
        z = size + (data[size - 1] << 2)
        return (_mix(((y * _K2) ^ (z * _K0)) & _MASK) * _K2) & _MASK
    return _K2


def _upto32(data: bytes) -> int:
    size = len(data)
    factor = (_K2 + size * 2) & _MASK
    a = (_fetch(data, 0) * _K1) & _MASK
    b = _fetch(data, 8)
    c = (_fetch(data, size - 8) * factor) & _MASK
    d = (_fetch(data, size - 16) * _K2) & _MASK
    one = (_rotate((a + b) & _MASK, 43) + _rotate(c, 30) + d) & _MASK
    return _hash16(one, (a + _rotate((b + _K2) & _MASK, 18) + c) & _MASK, factor)


def _upto64(data: bytes) -> int:
    size = len(data)
    factor = (_K2 + size * 2) & _MASK
    a = (_fetch(data, 0) * _K2) & _MASK
    b = _fetch(data, 8)
    c = (_fetch(data, size - 8) * factor) & _MASK
    d = (_fetch(data, size - 16) * _K2) & _MASK
    y = (_rotate((a + b) & _MASK, 43) + _rotate(c, 30) + d) & _MASK
    z = _hash16(y, (a + _rotate((b + _K2) & _MASK, 18) + c) & _MASK, factor)
    e = (_fetch(data, 16) * factor) & _MASK
    f = _fetch(data, 24)
    g = ((y + _fetch(data, size - 32)) * factor) & _MASK
    h = ((z + _fetch(data, size - 24)) * factor) & _MASK
    one = (_rotate((e + f) & _MASK, 43) + _rotate(g, 30) + h) & _MASK
    return _hash16(one, (e + _rotate((f + a) & _MASK, 18) + g) & _MASK, factor)


def _weak(data: bytes, at: int, a: int, b: int) -> tuple[int, int]:
    w, x, y, z = (_fetch(data, at + 8 * i) for i in range(4))
    a = (a + w) & _MASK
    b = _rotate((b + a + z) & _MASK, 21)
    c = a
    a = (a + x + y) & _MASK
    b = (b + _rotate(a, 44)) & _MASK
    return (a + z) & _MASK, (b + c) & _MASK


def _longer(data: bytes) -> int:
    size, seed = len(data), 81
    x = seed
    y = (seed * _K1 + 113) & _MASK
    z = (_mix((y * _K2 + 113) & _MASK) * _K2) & _MASK
    v = w = (0, 0)
    x = (x * _K2 + _fetch(data, 0)) & _MASK
    end = ((size - 1) // 64) * 64
    last = end + ((size - 1) & 63) - 63
    for at in range(0, end, 64):
        x = (_rotate((x + y + v[0] + _fetch(data, at + 8)) & _MASK, 37) * _K1) & _MASK
        y = (_rotate((y + v[1] + _fetch(data, at + 48)) & _MASK, 42) * _K1) & _MASK
        x ^= w[1]
        y = (y + v[0] + _fetch(data, at + 40)) & _MASK
        z = (_rotate((z + w[0]) & _MASK, 33) * _K1) & _MASK
        v = _weak(data, at, (v[1] * _K1) & _MASK, (x + w[0]) & _MASK)
        w = _weak(data, at + 32, (z + w[1]) & _MASK, (y + _fetch(data, at + 16)) & _MASK)
        z, x = x, z
    factor = (_K1 + ((z & 0xFF) << 1)) & _MASK
    at = last
    w = ((w[0] + ((size - 1) & 63)) & _MASK, w[1])
    v = ((v[0] + w[0]) & _MASK, v[1])
    w = ((w[0] + v[0]) & _MASK, w[1])
    x = (_rotate((x + y + v[0] + _fetch(data, at + 8)) & _MASK, 37) * factor) & _MASK
    y = (_rotate((y + v[1] + _fetch(data, at + 48)) & _MASK, 42) * factor) & _MASK
    x ^= (w[1] * 9) & _MASK
    y = (y + v[0] * 9 + _fetch(data, at + 40)) & _MASK
    z = (_rotate((z + w[0]) & _MASK, 33) * factor) & _MASK
    v = _weak(data, at, (v[1] * factor) & _MASK, (x + w[0]) & _MASK)
    w = _weak(data, at + 32, (z + w[1]) & _MASK, (y + _fetch(data, at + 16)) & _MASK)
    z, x = x, z
    one = (_hash16(v[0], w[0], factor) + _mix(y) * _K0 + z) & _MASK
    return _hash16(one, (_hash16(v[1], w[1], factor) + x) & _MASK, factor)
