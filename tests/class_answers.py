"""Answers that a class may hand in to the four assignments: `HANDED_IN` says what each gets. `test_assignments` compares, `class_of_100` makes a class of them."""
import ast, re

NO_GENERATOR = '''def dyck_rows(n, k, seq_len, generator):
    return tasks['dyck'](k=k, seq_len=seq_len).rows(n, torch.Generator().manual_seed(int(torch.rand(1) * 1e6)))[0]'''
ONLY_NESTED = '''def dyck_rows(n, k, seq_len, generator):
    x = torch.randint(k, (n, seq_len // 2), generator=generator)
    return torch.cat([x, x.flip(1) + k], 1)'''
HARD_CODED = '''def dyck_rows(n, k, seq_len, generator): return torch.tensor([[0, k] * (seq_len // 2)] * n)'''
ROW_BY_ROW = '''def dyck_rows(n, k, seq_len, generator):
    coins, kinds = torch.rand(n, seq_len, generator=generator).tolist(), torch.randint(k, (n, seq_len), generator=generator).tolist()
    out = []
    for c, s in zip(coins, kinds):
        held, row = [], []
        for t in range(seq_len):
            if not held or (c[t] < .5 and len(held) < seq_len - t):
                held.append(s[t])
                row.append(s[t])
            else: row.append(held.pop() + k)
        out.append(torch.tensor(row))
    return torch.stack(out)'''
BY_COUNTING = '''def is_dyck(rows, k): return (rows < k).sum(1) * 2 == rows.shape[1]'''
LATE_MASK = '''def attention_maps(q, k): return (q @ k.mT / q.shape[-1] ** .5).softmax(-1).tril()'''
NO_ROOT = '''def attention_maps(q, k):
    T = q.shape[-2]
    return (q @ k.mT).masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf).softmax(-1)'''
OVERFLOW = '''def attention_maps(q, k):
    e = (q @ k.mT / q.shape[-1] ** .5).exp().tril()
    return e / e.sum(-1, keepdim=True)'''
PLAIN_VIEW = '''class MyAttention(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.n_head = cfg.n_head
        self.c_attn, self.c_proj = nn.Linear(cfg.n_embd, 3 * cfg.n_embd), nn.Linear(cfg.n_embd, cfg.n_embd)
    def forward(self, x, at=None):
        B, T, C = x.shape
        q, k, v = (o.reshape(B, self.n_head, T, -1) for o in self.c_attn(x).split(C, dim=-1))
        return self.c_proj((attention_maps(q, k) @ v).reshape(B, T, C))'''
IN_PLACE = '''def with_mine(model):
    for block in model.h:
        new = MyAttention(model.config)
        new.load_state_dict(block.attn.state_dict())
        block.attn = new
    return model'''
RAISES = '''def with_mine(model): raise NotImplementedError('later')'''
COPIES_FIRST = '''@torch.no_grad()
def carry(source, target, parts):
    new, n = dict(target.named_parameters()), 0
    for name, p in source.named_parameters():
        if part_of(name) in parts:
            rows = min(len(p), len(new[name])) if name == 'wpe.weight' else len(p)
            if p[:rows].shape != new[name][:rows].shape: raise ValueError('shapes')
            new[name][:rows] = p[:rows]
            n += p[:rows].numel()
    if set(parts) - {'attn', 'mlp', 'ln', 'tok', 'pos'}: raise ValueError('part')
    return n'''
BY_TRANSFER = '''def carry(source, target, parts): return sum(transfer(source, target, parts).moved.values())'''
INVENTED = '''results = {'random weights': [.9, .9], 'attention and positions': [.95, .95], 'MLPs': [.2, .1]}'''
NO_RULE = '''class MyRule(Task):
    "Random tokens"
    def __init__(self): self.token_names, self.pad, self.seq_len = [*'0123456789', '|', '=', '·'], 12, 12
    def rows(self, n, generator):
        x = torch.randint(10, (n, 12), generator=generator)
        return x, (torch.arange(12) < 11).expand(n, -1)
    def valid(self, tokens): return torch.ones(len(tokens), dtype=torch.bool)'''
IS_ADDITION = '''class MyRule(type(tasks['reversed_addition'](digits=3))):
    def __init__(self): super().__init__(3)'''
COPIED_CHECK = '''def is_dyck(rows, k): return tasks['dyck'](k=k, seq_len=rows.shape[1]).check(rows)'''
COPIED_ROWS = '''def dyck_rows(n, k, seq_len, generator): return words(k, seq_len).rows(n, generator)[0]
def words(k, seq_len): return tasks['dyck'](k=k, seq_len=seq_len)'''
COPIED_LAYER = '''class MyAttention(type(GPT(GPTConfig()).h[0].attn)): pass'''

LISTS = '''def is_dyck(rows, k):
    return [all(sum(x < k for x in r[:i]) >= i / 2 for i in range(len(r) + 1)) and sum(x < k for x in r) * 2 == len(r) for r in rows.tolist()]'''
ENDLESS = '''def is_dyck(rows, k):
    while True: pass'''
DIES = '''def is_dyck(rows, k):
    import os
    os.kill(os.getpid(), 9)'''

# ---- right answers in other words

BY_REPLACING = '''def is_dyck(rows, k):
    def rest(word):
        pairs = [chr(65 + i) + chr(65 + k + i) for i in range(k)]
        while any(p in word for p in pairs):
            for p in pairs: word = word.replace(p, '')
        return word
    return torch.tensor([rest(''.join(chr(65 + t) for t in r)) == '' for r in rows.tolist()])'''
BY_DEPTH = '''def is_dyck(rows, k):
    n, T = rows.shape
    held, depth, good = torch.zeros(n, T + 2, dtype=torch.int64), torch.zeros(n, dtype=torch.int64), torch.ones(n, dtype=torch.bool)
    for t in range(T):
        x, each = rows[:, t], torch.arange(n)
        opens, top = x < k, held[each, depth]
        good &= opens | ((depth > 0) & (top == x - k))
        depth = torch.where(opens, depth + 1, (depth - 1).clamp(min=0))
        held[each, depth] = torch.where(opens, x, held[each, depth])
    return good & (depth == 0)'''
BY_RECURSION = '''def is_dyck(rows, k):
    def word(row, at):
        while at < len(row) and row[at] < k:
            end = word(row, at + 1)
            if end is None or end >= len(row) or row[end] != row[at] + k: return None
            at = end + 1
        return at
    return torch.tensor([word(r, 0) == len(r) for r in rows.tolist()])'''
BY_BALLOTS = '''def dyck_rows(n, k, seq_len, generator):
    ways = torch.zeros(seq_len + 1, seq_len + 2, dtype=torch.float64)
    ways[0, 0] = 1
    for left in range(1, seq_len + 1):
        for d in range(seq_len + 1): ways[left, d] = ways[left - 1, d + 1] + (ways[left - 1, d - 1] if d else 0)
    depth, out = torch.zeros(n, dtype=torch.int64), torch.zeros(n, seq_len, dtype=torch.int64)
    held, each = torch.zeros(n, seq_len + 2, dtype=torch.int64), torch.arange(n)
    for t in range(seq_len):
        up = ways[seq_len - t - 1, depth + 1] / ways[seq_len - t, depth]
        opens = torch.rand(n, generator=generator) < up
        kind = torch.randint(k, (n,), generator=generator)
        out[:, t] = torch.where(opens, kind, held[each, depth] + k)
        depth = depth + torch.where(opens, 1, -1)
        held[each, depth.where(opens, torch.full_like(depth, seq_len + 1))] = kind
    return out'''
BY_PARTNERS = '''def dyck_rows(n, k, seq_len, generator):
    step, depth = torch.zeros(n, seq_len, dtype=torch.int64), torch.zeros(n, dtype=torch.int64)
    last = torch.zeros(n, seq_len + 1, dtype=torch.int64)
    out, each = torch.zeros(n, seq_len, dtype=torch.int64), torch.arange(n)
    for t in range(seq_len):
        must, may_not = depth == 0, depth == seq_len - t
        opens = must | (~may_not & (torch.rand(n, generator=generator) < .6))
        kind = torch.randint(0, k, (n,), generator=generator)
        partner = last[each, depth]
        out[:, t] = torch.where(opens, kind, out[each, partner] + k)
        depth += 2 * opens.long() - 1
        last[each, depth] = torch.where(opens, torch.full_like(depth, t), last[each, depth])
    return out'''
MODEL_CHECKER = '''def is_dyck(rows, k):
    def balanced(row):
        held = []
        for t in row:
            if t < k: held.append(t)
            elif not held or held.pop() != t - k: return False
        return not held
    return torch.tensor([balanced(r) for r in rows.tolist()])'''
MODEL_SAMPLER = '''def dyck_rows(n, k, seq_len, generator):
    coin = torch.rand(seq_len, n, generator=generator) < .5
    depth, out = torch.zeros(n, dtype=torch.int64), torch.zeros(n, seq_len, dtype=torch.int64)
    held, each = torch.zeros(n, seq_len // 2 + 1, dtype=torch.int64), torch.arange(n)
    kinds = torch.randint(k, (seq_len, n), generator=generator)
    for t in range(seq_len):
        opens = (depth == 0) | (coin[t] & (depth < seq_len - t))
        top = held[each, (depth - 1).clamp(min=0)]
        out[:, t] = torch.where(opens, kinds[t], top + k)
        held[each, torch.where(opens, depth, held.shape[1] - 1)] = kinds[t]
        depth = depth + torch.where(opens, 1, -1)
    return out'''
CHECKERS = MODEL_CHECKER, BY_REPLACING, BY_DEPTH, BY_RECURSION
SAMPLERS = MODEL_SAMPLER, BY_BALLOTS, BY_PARTNERS
OWN_WORDS = [dict(held='stapel', depth='tiefe', opens='auf', out='zeilen'), dict(held='größe', depth='höhe', each='überall', row='übung'),
    dict(held='pile', depth='profondeur', each='chacun', opens='début'), dict(held='стек', depth='глубина', out='итог', row='ряд'), dict(held='山', depth='深さ', out='行', t='位'), {}]

def renamed(source, names):
    "Every name of its own replaced"
    for old, new in names.items(): source = re.sub(rf'\b{old}\b(?!=)', new, source)
    return source

def other_names(source, *, but=()):
    "All names that the answer binds itself, in other letters"
    tree = ast.parse(source)
    bound = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    inner = {n.name for top in tree.body for n in ast.walk(top) if isinstance(n, ast.FunctionDef) and n is not top} - {'forward', '__init__', 'rows', 'valid'}
    return renamed(source, {n: f'größe_{i}' for i, n in enumerate(sorted((bound | inner) - set(but)))})

def put(nb, *answers):
    "A notebook with some answers put in: each stands for the cell that begins as it does, up to the first bracket or ="
    for a in answers:
        head = re.match(r'[\w ]+', a[a.index('def '):] if a[0] == '@' else a)[0]
        cell = [c for c in nb['cells'] if re.search(f'^{re.escape(head)}', ''.join(c['source']), re.M) and c['cell_type'] == 'code']
        assert len(cell) == 1, head
        cell[0]['source'] = a
    return nb

# ---- the four assignments, and what each answer gets

NO_COUNT = '''@torch.no_grad()
def carry(source, target, parts):
    unknown = set(parts) - {'attn', 'mlp', 'ln', 'tok', 'pos'}
    if unknown: raise ValueError(f'There is no part {unknown.pop()!r}.')
    new, both = dict(target.named_parameters()), []
    for name, p in source.named_parameters():
        if part_of(name) not in parts: continue
        rows = min(len(p), len(new[name]))
        if p.shape[1:] != new[name].shape[1:] or (name != 'wpe.weight' and p.shape != new[name].shape): raise ValueError('shapes')
        both.append((new[name], p, rows))
    for to, p, rows in both: to[:rows] = p[:rows]
    return len(both)'''
ENDLESS_MAPS = '''def attention_maps(q, k):
    while True: pass'''
ENDLESS_CARRY = '''def carry(source, target, parts):
    while True: pass'''
ENDLESS_RULE = '''class MyRule(Task):
    "Tries until it finds a row"
    def __init__(self): self.token_names, self.pad, self.seq_len = [*'0123456789', '|', '=', '·'], 12, 12
    def rows(self, n, generator):
        while True: pass
    def valid(self, tokens): return torch.ones(len(tokens), dtype=torch.bool)'''
NOT_HELPFUL = '''class MyRule(Task):
    "The larger of two digits, in a corner"
    def __init__(self): self.token_names, self.pad, self.seq_len = [*'0123456789', '|', '=', '·'], 12, 12
    def rows(self, n, generator):
        x = torch.randint(10, (n, 12), generator=generator)
        x[:, 1] = x[:, 0]
        return x, (torch.arange(12) == 0).expand(n, -1)
    def valid(self, tokens): return tokens[:, 1] == tokens[:, 0]'''
NO_SEED = '''class MyRule(Task):
    "The larger digit of two at each place"
    def __init__(self): self.token_names, self.pad, self.seq_len = [*'0123456789', '|', '=', '·'], 12, 12
    def rows(self, n, generator):
        a, b = torch.randint(10, (2, n, 3))
        bar, place = torch.full_like(a[:, :1], 10), torch.arange(12)
        return torch.cat([a, bar, b, bar + 1, torch.maximum(a, b), bar + 2], 1), ((place >= 7) & (place < 10)).expand(n, -1)
    def valid(self, tokens): return (torch.maximum(tokens[:, :3], tokens[:, 4:7]) == tokens[:, 8:11]).all(1)'''

def answer_cells(nb): return [s for c in nb['cells'] if c['cell_type'] == 'code' and re.match(r'(@torch|def|class) ?', s := ''.join(c['source']))]

def in_other_letters(nb):
    "Every name that an answer binds is replaced by a word with an umlaut"
    return put(nb, *(other_names(s) for s in answer_cells(nb) if 'def network' not in s and 'needle' not in s))

def under_another_name(nb):
    "The first function or class that is asked for has another name, wherever it is used"
    name = re.search(r'^(?:def|class) (\w+)', answer_cells(nb)[0], re.M)[1]
    for c in nb['cells']:
        if c['cell_type'] == 'code': c['source'] = re.sub(rf'\b{name}\b', f'my_{name}', ''.join(c['source']))
    return nb

def saved_elsewhere(nb):
    nb['metadata']['kernelspec'] = dict(name='my-venv-3.9', display_name='mine', language='python')
    return nb

def answered(*answers): return lambda nb: put(nb, *answers)

SAME = {'model answer': lambda nb: nb, 'names in other letters': in_other_letters, "another kernel's name": saved_elsewhere}
# assignment -> what was handed in -> (made from the notebook with the model answers, points of each question; None: they depend on the seeds)
HANDED_IN = {
    '1_dyck': {**{k: (f, dict(checker=3, sampler=7)) for k, f in SAME.items()},
        'wrong: only nested words': (answered(ONLY_NESTED), dict(checker=3, sampler=5)),
        'wrong: counts brackets': (answered(BY_COUNTING), dict(checker=1, sampler=7)),
        'wrong: a loop over rows': (answered(ROW_BY_ROW), dict(checker=3, sampler=6)),
        'cheat: the package itself': (answered(COPIED_CHECK, COPIED_ROWS), dict(checker=2, sampler=5)),
        'endless': (answered(ENDLESS), dict(checker=0, sampler=7)),
        'renamed': (under_another_name, dict(checker=0, sampler=7))},
    '2_attention': {**{k: (f, dict(maps=4, layer=5, surgery=2)) for k, f in SAME.items()},
        'wrong: masked after the softmax': (answered(LATE_MASK), dict(maps=2, layer=1, surgery=0)),
        'wrong: no root of D': (answered(NO_ROOT), dict(maps=3, layer=2, surgery=0)),
        'wrong: the model is changed': (answered(IN_PLACE), dict(maps=4, layer=5, surgery=0)),
        'cheat: the package itself': (answered(COPIED_LAYER), dict(maps=4, layer=2, surgery=2)),
        'endless': (answered(ENDLESS_MAPS), dict(maps=0, layer=1, surgery=0)),
        'renamed': (under_another_name, dict(maps=0, layer=5, surgery=2))},
    '3_transfer': {**{k: (f, dict(carry=5, results=3)) for k, f in SAME.items()},
        'wrong: copies, then refuses': (answered(COPIES_FIRST), dict(carry=4, results=3)),
        'wrong: another count': (answered(NO_COUNT), dict(carry=3, results=3)),
        'wrong: invented figures': (answered(INVENTED), dict(carry=5, results=1)),
        'cheat: the package itself': (answered(BY_TRANSFER), dict(carry=3, results=3)),
        'endless': (answered(ENDLESS_CARRY), dict(carry=0, results=0)),
        'renamed': (under_another_name, dict(carry=0, results=3))},
    '4_rule': {**{k: (f, dict(rule=5, teaches=4)) for k, f in SAME.items()},
        'wrong: no rule': (answered(NO_RULE), dict(rule=4, teaches=0)),
        'wrong: practises nothing of use': (answered(NOT_HELPFUL), dict(rule=5, teaches=0)),
        'wrong: ignores the generator': (answered(NO_SEED), dict(rule=3, teaches=4)),
        'cheat: the package itself': (answered(IS_ADDITION), dict(rule=4, teaches=None)), # addition teaches addition with some seeds only
        'endless': (answered(ENDLESS_RULE), dict(rule=0, teaches=0)),
        'renamed': (under_another_name, dict(rule=0, teaches=0))}}
TRAINS = 'results', 'teaches' # questions whose tests train networks
