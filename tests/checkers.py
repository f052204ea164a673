"""A second set of checkers, written from the definitions and independent of the package: no tensors, nothing imported from it, other algorithms.
`check(name, settings, row)` says whether a row keeps the rule, `answered(name, settings, row)` at which positions it is asked."""
import re
from bisect import insort
from collections import Counter

def unpad(row, pad):
    n = len(row)
    while n and row[n - 1] == pad: n -= 1
    return row[:n]

def parts(row, sep):
    "Split at `sep`"
    cuts = [-1, *(i for i, t in enumerate(row) if t == sep), len(row)]
    return [row[a + 1:b] for a, b in zip(cuts, cuts[1:])]

def sized(x, length, lengths, least=1): return len(x) == length if lengths == 'fixed' else least <= len(x) <= length
def symbols(x, n): return all(t in range(1, n + 1) for t in x)

# brackets: a nested word shrinks to nothing; a shuffled one is a nested word of each kind by itself
def shrinks(word, k):
    text = ''.join(chr(0x100 + t) for t in word)
    pairs = re.compile('|'.join(chr(0x100 + i) + chr(0x100 + k + i) for i in range(k)))
    while (less := pairs.sub('', text)) != text: text = less
    return not text

def depths(word, k): return [sum(1 if t < k else -1 for t in word[:i + 1]) for i in range(len(word))]

def dyck(row, k, seq_len, p_open): return shrinks([t for t in row if t != 2 * k], k)

def dyck_shuffle(row, k, seq_len, p_open, max_depth, closed):
    word = [t for t in row if t != 2 * k]
    for i in range(k):
        lane = [t for t in word if t % k == i]
        walk = depths(lane, k)
        if walk and (min(walk) < 0 or (closed and walk[-1])): return False
    return max(depths(word, k), default=0) <= (max_depth or min(16, seq_len // 2))

# sequences
def mirror(x):
    out = []
    for t in x: out.insert(0, t)
    return out

def in_order(x):
    out = []
    for t in x: insort(out, t)
    return out

def uniques(x): return [t for i, t in enumerate(x) if t not in x[:i]]

def rewrite(row, length, lengths, n_symbols, says):
    p = parts(unpad(row, n_symbols + 2), n_symbols + 1)
    return len(p) == 2 and sized(p[0], length, lengths) and symbols(p[0], n_symbols) and says(p[0]) == p[1]

def identity(row, length, lengths, n_symbols): return rewrite(row, length, lengths, n_symbols, lambda x: x[:])
def reverse(row, length, lengths, n_symbols): return rewrite(row, length, lengths, n_symbols, mirror)
def sort(row, length, lengths, n_symbols): return rewrite(row, length, lengths, n_symbols, in_order)
def set_(row, length, lengths, n_symbols): return rewrite(row, length, lengths, n_symbols, uniques)

def union(row, length, lengths, n_symbols):
    p = parts(unpad(row, n_symbols + 2), n_symbols + 1)
    return (len(p) == 3 and all(sized(x, length // 2, lengths) and symbols(x, n_symbols) for x in p[:2])
        and p[2] == uniques(p[0]) + [t for t in uniques(p[1]) if t not in p[0]])

def delete(row, length, lengths, n_symbols, p_inside):
    p = parts(unpad(row, n_symbols + 2), n_symbols + 1)
    if len(p) != 3 or len(p[1]) != 1 or not sized(p[0], length, lengths, 2) or not symbols(p[0] + p[1], n_symbols): return False
    x = p[0][:]
    if p[1][0] in x: x.remove(p[1][0])
    return x == p[2]

def stack(row, length, lengths, n_symbols):
    p = parts(unpad(row, n_symbols + 2), n_symbols + 1)
    if len(p) != 2 or not sized(p[0], length, lengths): return False
    held, ops = (), p[0]
    for left, op in zip(range(len(ops) - 1, -1, -1), ops):
        allowed = set(range(1, n_symbols + 1)) - set(held) if len(held) < 2 or left else set()
        if len(held) > 1: allowed.add(0)
        if op not in allowed: return False
        held = held[1:] if op == 0 else (op, *held)
    return list(held) == p[1]

# automata: a state is one number, its neighbours are that number turned by one place
def turn(x, n, by): return ((x << by) | (x >> (n - by))) & (2 ** n - 1)

def eca(row, rule, length, n_steps, lengths):
    s = parts(unpad(row, 3), 2)
    if len(s) != n_steps + 1 or not sized(s[0], length, lengths, 3) or any(len(x) != len(s[0]) or set(x) - {0, 1} for x in s): return False
    n, states = len(s[0]), [int(''.join(map(str, x)), 2) for x in s]
    for a, b in zip(states, states[1:]):
        left, right, now = turn(a, n, n - 1), turn(a, n, 1), 0
        for hood in range(8):
            if rule >> hood & 1: now |= (left if hood & 4 else ~left) & (a if hood & 2 else ~a) & (right if hood & 1 else ~right)
        if now & (2 ** n - 1) != b: return False
    return True

# tests
def haystack(row, n_pairs):
    row = unpad(row, 0)
    if len(row) < 4 or len(row) % 2 or len(row) > 2 * n_pairs + 2: return False
    body, (ask, said) = row[:-2], row[-2:]
    pairs = [(body[i] - 128, body[i + 1]) for i in range(0, len(body), 2)]
    if any(not 0 <= k < n_pairs or not 1 <= v <= 127 for k, v in pairs) or max(Counter(k for k, _ in pairs).values()) > 1: return False
    return (ask - 128 - n_pairs, said) in pairs

def spelt(a, b, c, turned):
    "The tokens of a calculation, from its text"
    flip = (lambda s: s[::-1]) if turned else (lambda s: s)
    return [*map(int, flip(str(a))), 10, *map(int, flip(str(b))), 11, *(20 + int(d) for d in flip(str(c))), 30]

def calculation(row, d, result, turned, width):
    if len(row) > width and set(row[width:]) != {12}: return False
    digit = lambda x: int(''.join(map(str, x[::-1] if turned else x))) if all(0 <= t < 10 for t in x) else None
    a, b = digit(row[:d]), digit(row[d + 1:2 * d + 1])
    if None in (a, b) or len(row) < 3 * d + 2 or any(len(str(o)) != d for o in (a, b)): return False
    return unpad(row, 12) == spelt(a, b, result(a, b), turned)

def addition(row, digits, metric): return calculation(row, digits, int.__add__, False, 3 * digits + 4)
def reversed_addition(row, digits, metric): return calculation(row, digits, int.__add__, True, 3 * digits + 4)
def multiplication(row, digits, metric): return calculation(row, digits, int.__mul__, False, 5 * digits + 4)

def sorting(row, length, n_symbols, lengths, metric):
    row, sep = unpad(row, n_symbols + 2), n_symbols + 1
    if row.count(sep) != 1 or not row or row[-1] != 2 * n_symbols + 3: return False
    x, y = row[:row.index(sep)], [t - n_symbols - 2 for t in row[row.index(sep) + 1:-1]]
    return sized(x, length, lengths) and symbols(x, n_symbols) and Counter(x) == Counter(y) and all(a <= b for a, b in zip(y, y[1:]))

def check(name, settings, row): return bool({'set': set_}.get(name, globals().get(name))(row, **settings))

# where answers are asked
def answered(name, settings, row):
    if name in ('dyck', 'dyck_shuffle'): return list(range(len(row) - 1))
    if name == 'haystack': return [len(unpad(row, 0)) - 2]
    if 'digits' in settings: equals, first, stop = 11, 20, 30
    elif name == 'sorting': equals, first, stop = settings['n_symbols'] + 1, settings['n_symbols'] + 3, 2 * settings['n_symbols'] + 3
    elif name == 'eca':
        start = row.index(2)
        return [i for i in range(start, len(unpad(row, 3)) - 1) if row[i + 1] != 2]
    else:
        sep, end = settings['n_symbols'] + 1, len(unpad(row, settings['n_symbols'] + 2))
        return list(range(max(i for i, t in enumerate(row) if t == sep), end - 1))
    if settings['metric'] == 'paper': return [i for i, t in enumerate(row[:-1]) if t >= first]
    return list(range(row.index(equals), row.index(stop)))
