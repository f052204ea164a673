"""Plain Python generators, one row at a time, as one would first write them: another way to the same distribution.
`row(name, settings, rng)` gives one row without padding."""

def size(rng, length, lengths, least=1): return length if lengths == 'fixed' else rng.randint(least, length)
def symbols(rng, n, n_symbols): return [rng.randint(1, n_symbols) for _ in range(n)]

def dyck(rng, k, seq_len, p_open):
    held, out = [], []
    for left in range(seq_len - 1, -1, -1):
        if not held or (len(held) < left and rng.random() < p_open):
            held.append(rng.randrange(k))
            out.append(held[-1])
        else: out.append(held.pop() + k)
    return out

def dyck_shuffle(rng, k, seq_len, p_open, max_depth, closed):
    count, out, max_depth = [0] * k, [], max_depth or min(16, seq_len // 2)
    for left in range(seq_len - 1, -1, -1):
        depth = sum(count)
        if not depth or (depth < (min(max_depth, left) if closed else max_depth) and rng.random() < p_open): out.append(rng.randrange(k))
        else: out.append(rng.choice([i for i in range(k) if count[i]]) + k)
        count[out[-1] % k] += 1 if out[-1] < k else -1
    return out

def answered(rng, length, lengths, n_symbols, says):
    x = symbols(rng, size(rng, length, lengths), n_symbols)
    return [*x, n_symbols + 1, *says(x)]

def identity(rng, **kw): return answered(rng, **kw, says=list)
def reverse(rng, **kw): return answered(rng, **kw, says=lambda x: x[::-1])
def sort(rng, **kw): return answered(rng, **kw, says=sorted)
def set_(rng, **kw): return answered(rng, **kw, says=dict.fromkeys)

def union(rng, length, lengths, n_symbols):
    a, b = (symbols(rng, size(rng, length // 2, lengths), n_symbols) for _ in range(2))
    return [*a, n_symbols + 1, *b, n_symbols + 1, *dict.fromkeys(a + b)]

def delete(rng, length, lengths, n_symbols, p_inside):
    x = symbols(rng, size(rng, length, lengths, 2), n_symbols)
    d = rng.choice(x) if rng.random() < p_inside else rng.randint(1, n_symbols)
    rest = x[:]
    if d in rest: rest.remove(d)
    return [*x, n_symbols + 1, d, n_symbols + 1, *rest]

def stack(rng, length, lengths, n_symbols):
    n, held, ops = size(rng, length, lengths), [], []
    for i in range(n):
        if len(held) <= 1 or (i < n - 1 and rng.random() < (.75 if 3 * i < 2 * n else .25)):
            held.append(rng.choice([s for s in range(1, n_symbols + 1) if s not in held]))
            ops.append(held[-1])
        else: ops.append(held.pop() and 0)
    return [*ops, n_symbols + 1, *held[::-1]]

def eca(rng, rule, length, n_steps, lengths):
    x = [rng.randrange(2) for _ in range(size(rng, length, lengths, 3))]
    out = x[:]
    for _ in range(n_steps):
        x = [rule >> (4 * x[i - 1] + 2 * x[i] + x[(i + 1) % len(x)]) & 1 for i in range(len(x))]
        out += [2, *x]
    return out

def haystack(rng, n_pairs):
    keys = rng.sample(range(n_pairs), rng.randint(1, n_pairs))
    pairs = [(k, rng.randint(1, 127)) for k in keys]
    k, v = rng.choice(pairs)
    return [t for key, value in pairs for t in (128 + key, value)] + [128 + n_pairs + k, v]

def calculation(rng, d, result, turned=False):
    a, b = (rng.randrange(10 ** (d - 1) if d > 1 else 0, 10 ** d) for _ in range(2))
    a, b, c = (str(o)[::-1] if turned else str(o) for o in (a, b, result(a, b)))
    return [*map(int, a), 10, *map(int, b), 11, *(20 + int(o) for o in c), 30]

def addition(rng, digits, metric): return calculation(rng, digits, int.__add__)
def reversed_addition(rng, digits, metric): return calculation(rng, digits, int.__add__, True)
def multiplication(rng, digits, metric): return calculation(rng, digits, int.__mul__)

def sorting(rng, length, n_symbols, lengths, metric):
    x = symbols(rng, size(rng, length, lengths), n_symbols)
    return [*x, n_symbols + 1, *(n_symbols + 2 + t for t in sorted(x)), 2 * n_symbols + 3]

def row(name, settings, rng): return {'set': set_}.get(name, globals().get(name))(rng, **settings)
