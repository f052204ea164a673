"The assignments: student notebooks show nothing they should not, model answers get full marks, wrong ones do not."
import csv, importlib.util, json, re, sys, zipfile
from pathlib import Path
import pytest

pytest.importorskip('otter', reason='needs otter-grader: the extra course')
HERE = Path(__file__).parent.parent/'tutorials'/'assignments'
spec = importlib.util.spec_from_file_location('make_assignments', HERE/'make.py')
maker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(maker)
grader = sys.modules['grade']
def points(book, bundle, limit=120): return grader.points(book.read_bytes(), bundle, limit)[0]
POINTS = {'1_dyck': 10, '2_attention': 11, '3_transfer': 8, '4_rule': 9}

@pytest.fixture(scope='module')
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp('made')
    assert list(maker.make(out, 'our class')) == list(POINTS)
    return out

def book(path): return json.loads(path.read_text(encoding='utf-8'))
def text(path, kinds=('code', 'markdown', 'raw')): return '\n'.join(''.join(c['source']) for c in book(path)['cells'] if c['cell_type'] in kinds)

def put(made, name, tmp_path, *answers, limit=120):
    "The model answers with some cells replaced: each answer stands for the cell that begins as it does, up to the first bracket or ="
    nb = book(made/'autograder'/f'{name}_answers.ipynb')
    for a in answers:
        head = re.match(r'[\w ]+', a[a.index('def '):] if a[0] == '@' else a)[0]
        cell = [c for c in nb['cells'] if re.search(f'^{re.escape(head)}', ''.join(c['source']), re.M) and c['cell_type'] == 'code']
        assert len(cell) == 1, head
        cell[0]['source'] = a
    (tmp_path/'answer.ipynb').write_text(json.dumps(nb), encoding='utf-8')
    return points(tmp_path/'answer.ipynb', made/'autograder'/f'{name}.zip', limit)

@pytest.mark.parametrize('name', POINTS)
def test_student_notebook(made, name):
    mine, answers = text(made/'student'/f'{name}.ipynb'), text(made/'autograder'/f'{name}_answers.ipynb')
    for word in ('SOLUTION', 'HIDDEN', 'BEGIN TEST', 'assert', 'One point'): assert word not in mine
    assert '%pip install -q proc-nb' in mine and '...' in mine and 'Points:**' in mine and 'Time:**' in mine
    assert 'otter' not in mine, 'a student needs no grader'
    blocks = re.findall('# BEGIN SOLUTION.*?# END SOLUTION', text(HERE/'_masters'/f'{name}.ipynb', ['code']), re.S)
    solved = [l.strip() for b in blocks for l in b.splitlines()[1:-1] if len(l.strip()) > 25]
    assert len(solved) > 3 and not [l for l in solved if l in mine] and all(l in answers for l in solved)
    meta = json.dumps(book(made/'student'/f'{name}.ipynb')['metadata'])
    assert 'hidden": true' not in meta and str(maker.hidden_seed('our class', name)) not in meta

@pytest.mark.parametrize('name', POINTS)
def test_the_secret_draws_the_hidden_tests(made, name):
    with zipfile.ZipFile(made/'autograder'/f'{name}.zip') as z: tests = '\n'.join(z.read(n).decode() for n in z.namelist() if n.endswith('.py'))
    assert 'HIDDEN_SEED' not in tests and str(maker.hidden_seed('our class', name)) in tests
    assert len({maker.hidden_seed(s, n) for s in ('', 'a', 'b') for n in POINTS}) == 12

def test_masters_are_clean():
    for p in (HERE/'_masters').glob('*.ipynb'):
        nb = book(p)
        assert all(c['id'] and not c.get('outputs') for c in nb['cells']) and set(nb['metadata']) <= {'kernelspec', 'language_info'}

FULL = pytest.mark.full
@pytest.mark.parametrize('name', ['1_dyck', *(pytest.param(n, marks=FULL) for n in list(POINTS)[1:])])
def test_model_answer(made, name, tmp_path): assert put(made, name, tmp_path)['total'] == (POINTS[name], POINTS[name])

@pytest.mark.parametrize('name', ['2_attention', *(pytest.param(n, marks=FULL) for n in POINTS if n != '2_attention')])
def test_blank(made, name): assert points(made/'student'/f'{name}.ipynb', made/'autograder'/f'{name}.zip')['total'] == (0, POINTS[name])

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
CASES = [('1_dyck', [NO_GENERATOR], {'sampler': 6}), ('1_dyck', [ONLY_NESTED], {'sampler': 5}), ('1_dyck', [HARD_CODED], {'sampler': 4}), ('1_dyck', [ROW_BY_ROW], {'sampler': 6}),
    ('1_dyck', [BY_COUNTING], {'checker': 1}), ('2_attention', [LATE_MASK], {'maps': 3, 'layer': 4}), ('2_attention', [NO_ROOT], {'maps': 3, 'layer': 2}), ('2_attention', [OVERFLOW], {'maps': 3}),
    ('2_attention', [PLAIN_VIEW], {'layer': 2, 'surgery': 1}), ('2_attention', [IN_PLACE], {'surgery': 0}), ('2_attention', [RAISES], {'surgery': 0}), ('3_transfer', [COPIES_FIRST], {'carry': 4}), ('3_transfer', [BY_TRANSFER], {'carry': 4}),
    ('3_transfer', [INVENTED], {'results': 1}), ('4_rule', [NO_RULE], {'rule': 4, 'teaches': 0}), ('4_rule', [IS_ADDITION], {'rule': 4}),
    ('1_dyck', [COPIED_CHECK, COPIED_ROWS], {'checker': 2, 'sampler': 5}), ('2_attention', [COPIED_LAYER], {'layer': 2})]
NAMES = 'no_generator only_nested hard_coded row_by_row by_counting late_mask no_root overflow plain_view in_place raises copies_first by_transfer invented no_rule is_addition copied_functions copied_layer'.split()

@pytest.mark.parametrize('name, answers, most', [pytest.param(*c, id=n, marks=() if n == 'hard_coded' else FULL) for n, c in zip(NAMES, CASES)])
def test_wrong_answer(made, name, answers, most, tmp_path):
    got = put(made, name, tmp_path, *answers)
    for question, limit in most.items(): assert got[question][0] <= limit < got[question][1], got
    assert got['total'][0] < POINTS[name]

def table(folder): return list(csv.DictReader((folder/'grades.csv').read_text(encoding='utf-8-sig').splitlines()))

def test_a_loop_over_rows_is_found_without_a_clock(made, tmp_path):
    nb = book(made/'autograder'/'1_dyck_answers.ipynb')
    cell, = [c for c in nb['cells'] if ''.join(c['source']).startswith('def dyck_rows')]
    cell['source'] = ROW_BY_ROW
    got, wrong = grader.points(json.dumps(nb).encode(), made/'autograder'/'1_dyck.zip', 120)
    assert got['sampler'] == (6, 7) and 'is there a loop over rows?' in wrong['sampler'][0]
    assert 'perf_counter' not in text(HERE/'_masters/1_dyck.ipynb')

def test_what_cannot_be_graded(made, tmp_path):
    (tmp_path/'in').mkdir()
    (tmp_path/'in'/'broken.ipynb').write_text('{', encoding='utf-8')
    grader.grade(made/'autograder'/'1_dyck.zip', tmp_path/'in', tmp_path/'out', limit=60)
    assert 'it is no notebook' in table(tmp_path/'out')[0]['problem'] and 'it is no notebook' in (tmp_path/'out/feedback/broken.txt').read_text(encoding='utf-8')

@pytest.mark.parametrize('what', ['a folder that is not there', 'an empty folder', 'no bundle'])
def test_nothing_to_grade_is_an_error(what, made, tmp_path, capsys, monkeypatch):
    "It printed nothing and ended well"
    where = tmp_path/'none' if 'not there' in what else tmp_path
    bundle = tmp_path/'none.zip' if what == 'no bundle' else made/'autograder'/'1_dyck.zip'
    if what == 'no bundle': (tmp_path/'a.ipynb').write_text('{}', encoding='utf-8')
    monkeypatch.setattr(sys, 'argv', ['make.py', 'grade', str(bundle), str(where), '--out', str(tmp_path/'out')])
    with pytest.raises(SystemExit, match='There is no|Nothing was handed in'): maker.main()

ENDLESS = '''def is_dyck(rows, k):
    while True: pass'''

@FULL
def test_an_endless_answer_costs_its_own_question(made, tmp_path):
    got = put(made, '1_dyck', tmp_path, ENDLESS, limit=15)
    assert got['checker'] == (0, 3) and got['sampler'] == (7, 7)
    wrong = grader.points((tmp_path/'answer.ipynb').read_bytes(), made/'autograder'/'1_dyck.zip', 15)[1]
    assert 'given up after 15 s' in wrong['checker'][0]

@FULL
def test_another_kernels_name(made, tmp_path):
    nb = book(made/'autograder'/'1_dyck_answers.ipynb')
    nb['metadata']['kernelspec'] = dict(name='my-venv-3.9', display_name='mine', language='python')
    (tmp_path/'a.ipynb').write_text(json.dumps(nb), encoding='utf-8')
    assert points(tmp_path/'a.ipynb', made/'autograder'/'1_dyck.zip')['total'] == (10, 10)

def test_a_notebook_is_made_ready():
    nb = dict(nbformat=4, nbformat_minor=5, metadata=dict(kernelspec=dict(name='r')), cells=[dict(cell_type='code', id='a', source=['%pip install -q proc-nb\n', 'x = 1'])])
    ready = grader.prepared(json.dumps(nb).encode(), 7)
    assert ready['metadata']['kernelspec']['name'] == 'python3' and 'given up after 7 s' in ready['cells'][0]['source'] and ready['cells'][1]['source'] == '\nx = 1'
    for odd in (b'{', b'[]', b'{"cells": 3}', b'\xff'):
        with pytest.raises(ValueError, match='it is no notebook'): grader.prepared(odd, 7)

def test_what_a_class_hands_in(tmp_path):
    "Notebooks, zips, folders and one zip of all, with any name"
    (tmp_path/'in/Ada Lovelace_12').mkdir(parents=True)
    (tmp_path/'in/Ada Lovelace_12/x.ipynb').write_text('1', encoding='utf-8')
    (tmp_path/'in/Ada Lovelace_12/.ipynb_checkpoints').mkdir()
    (tmp_path/'in/Ada Lovelace_12/.ipynb_checkpoints/x.ipynb').write_text('9', encoding='utf-8')
    (tmp_path/'in/plain.ipynb').write_text('2', encoding='utf-8')
    (tmp_path/'in/notes.txt').write_text('no', encoding='utf-8')
    with zipfile.ZipFile(tmp_path/'in/Zo\u00eb.zip', 'w') as z: z.writestr('sub/a.ipynb', '3'), z.writestr('__MACOSX/sub/a.ipynb', '9')
    with zipfile.ZipFile(tmp_path/'in/two.zip', 'w') as z: z.writestr('a.ipynb', '4'), z.writestr('b.ipynb', '5')
    found = dict(grader.handed_in(tmp_path/'in'))
    assert {n: found[n]() for n in ('Ada Lovelace_12', 'plain', 'Zo\u00eb')} == {'Ada Lovelace_12': b'1', 'plain': b'2', 'Zo\u00eb': b'3'} and set(found) - {'two'} == {'Ada Lovelace_12', 'plain', 'Zo\u00eb'}
    with pytest.raises(ValueError, match='one notebook is asked for, and there are 2'): found['two']()
    with zipfile.ZipFile(tmp_path/'class.zip', 'w') as z: z.writestr('Ada_1/x.ipynb', '1'), z.writestr('Bob.ipynb', '2')
    assert {n: f() for n, f in grader.handed_in(tmp_path/'class.zip')} == {'Ada_1': b'1', 'Bob': b'2'}

def row(name, got=7., code=''):
    about = dict(name=name, bundle='b', sha256='s', words=[f'My answer, {name}'], code=code)
    return dict(about, points=dict(one=[got, 10.], total=[got, 10.]), wrong=dict(one=['it is 3']))

def test_a_second_call_goes_on(made, tmp_path, monkeypatch):
    "What is graded is not graded again, unless the notebook or the bundle has changed"
    (tmp_path/'in').mkdir()
    for n in 'abc': (tmp_path/'in'/f'{n}.ipynb').write_text(n, encoding='utf-8')
    asked = []
    def fake(name, read, bundle, limit):
        asked.append(name)
        if name == 'b' and len(asked) == 2: raise KeyboardInterrupt
        return {**row(name), 'bundle': grader.sha(Path(bundle).read_bytes()), 'sha256': grader.sha(read())}
    monkeypatch.setattr(grader, '_graded', fake)
    bundle = made/'autograder'/'1_dyck.zip'
    with pytest.raises(KeyboardInterrupt): grader.grade(bundle, tmp_path/'in', tmp_path/'out', limit=9)
    grader.grade(bundle, tmp_path/'in', tmp_path/'out', limit=9)
    assert asked.count('a') == 1 and len(table(tmp_path/'out')) == 3
    (tmp_path/'in/a.ipynb').write_text('new', encoding='utf-8')
    asked.clear()
    grader.grade(bundle, tmp_path/'in', tmp_path/'out', limit=9)
    assert asked == ['a']

def test_points_come_back_in_the_rosters_own_columns(tmp_path, capsys):
    (tmp_path/'canvas.csv').write_text('Student,ID,SIS Login ID,Section,Old\n"M\u00fcller, Zo\u00eb",501,zoe,A,3\n"Lovelace, Ada",502,ada,A,4\n"Nobody, Nick",503,nick,A,\n', encoding='utf-8')
    grader.upload([row('zoe m\u00fcller', 9.), row('lovelaceada_502_x', 8.), row('somebody else')], tmp_path/'canvas.csv', tmp_path/'up.csv', '1_dyck')
    lines = list(csv.reader((tmp_path/'up.csv').read_text(encoding='utf-8-sig').splitlines()))
    assert lines == [['Student', 'ID', 'SIS Login ID', 'Section', '1_dyck'], ['M\u00fcller, Zo\u00eb', '501', 'zoe', 'A', '9.0'], ['Lovelace, Ada', '502', 'ada', 'A', '8.0'], ['Nobody, Nick', '503', 'nick', 'A', '']]
    assert 'Not in the roster: somebody else' in capsys.readouterr().out
    (tmp_path/'moodle.csv').write_text('Identifier,Full name,Email address,Status\nParticipant 77,Ada Lovelace,ada@uni.example,x\n', encoding='utf-8')
    grader.upload([row('Ada Lovelace_77_assignsubmission_file', 8.)], tmp_path/'moodle.csv', tmp_path/'up.csv', '1_dyck')
    assert list(csv.reader((tmp_path/'up.csv').read_text(encoding='utf-8-sig').splitlines())) == [['Identifier', 'Full name', 'Email address', 'Grade'], ['Participant 77', 'Ada Lovelace', 'ada@uni.example', '8.0']]

def test_renamed_answers_are_alike():
    one = """def rows(n):
    held = [0] * n
    for i in range(n): held[i] = held[i - 1] + i * i
    return sum(held) / max(held)"""
    other = "def rows(k):\n    return [x for x in range(k) if x % 7 == 3 and x % 5 or x > 100] + list('abc') * k"
    renamed = '# my own\n' + one.replace('held', 'mine').replace('i', 'j').replace('jn', 'in').replace('mjne', 'mine')
    found = grader.alike([row('a', code=one), row('b', code=renamed), row('c', code=other)])
    assert [(f['a'], f['b']) for f in found] == [('b', 'a')]

def test_the_page_for_reading_and_the_feedback(tmp_path):
    rows = [dict(row(n), words=['The question', f'I think {n} <b>']) for n in ('Ada', 'Bob', 'Eve')]
    page = grader.reading(rows)
    assert page.count('The question') == 0 and 'I think Ada &lt;b&gt;' in page
    assert 'one: 7 of 10 points\n    it is 3' in grader.feedback(rows[0])

DIES = '''def is_dyck(rows, k):
    import os
    os.kill(os.getpid(), 9)'''

@FULL
def test_a_process_that_dies(made, tmp_path):
    "An answer that takes the grader down with it is reported, and the next notebook is graded"
    (tmp_path/'in').mkdir()
    with pytest.raises(ValueError, match='cannot be graded'): put(made, '1_dyck', tmp_path, DIES)
    (tmp_path/'answer.ipynb').rename(tmp_path/'in'/'a_dies.ipynb')
    (tmp_path/'in'/'b_blank.ipynb').write_bytes((made/'student'/'1_dyck.ipynb').read_bytes())
    grader.grade(made/'autograder'/'1_dyck.zip', tmp_path/'in', tmp_path/'out', limit=60)
    lines = table(tmp_path/'out')
    assert 'cannot be graded' in lines[0]['problem'] and lines[1]['name'] == 'b_blank' and lines[1]['total'] == '0'
