"Language models after a warm-up: many processes, kills, broken files and foreign formats."
import argparse, gzip, importlib, inspect, json, math, os, re, shutil, signal, subprocess, sys, threading, time
import numpy as np, pytest, torch
from itertools import islice
from pathlib import Path
from proc_nb.language import experiments as asking, corpus as pretraining_corpus, plan as pretraining_plan, pretrain as pretraining, cli as pretraining_cli
from proc_nb.all import *
from proc_nb.models.gpt import part_of
from proc_nb.train.loss import right_rows
from proc_nb.commands import language as language_cli, pretrain as pretrain_cli
from proc_nb.files import *
from proc_nb.language.tokenizers import *
from proc_nb.language.sources import *
from proc_nb.language.corpus import *
from proc_nb.language.study import *
from proc_nb.language.answers import *
from proc_nb.language.designs import *
from proc_nb.language.crossing import *
from proc_nb.language.experiments import *
from proc_nb.tasks.controls import *
from proc_nb.language.model import *
from proc_nb.language.plan import *
from proc_nb.language.lm_run import *
from proc_nb.language.pretrain import *
from proc_nb.language.cli import *

pytest.importorskip('accelerate')
ENV = dict(os.environ, OMP_NUM_THREADS='1', MKL_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')

@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
    "A cache of its own, shared with the processes that are started"
    ENV['PROC_NB_CACHE'] = os.environ['PROC_NB_CACHE'] = str(tmp_path_factory.mktemp('cache'))

@pytest.fixture(scope='module')
def data(cache): return corpus('maths', block_size=32, n=3000, progress=False)

def jsonl(path, texts):
    path.write_text(''.join(json.dumps(dict(text=t)) + '\n' for t in texts), 'utf-8')
    return str(path)

# ---- corpora

def test_embedded_corpora_are_the_same_again(tmp_path):
    for source in 'maths', 'code':
        one, two = (corpus(source, cache=tmp_path/k, progress=False, **(dict(n=2000) if source == 'maths' else {})) for k in 'ab')
        assert one.sha256 == two.sha256 and one.about['python'].startswith(f'{sys.version_info.major}.{sys.version_info.minor}')
        assert all(one.n_rows(s) for s in SPLIT_NAMES)

def documents(c, split): return {c.tokenizer.decode(d).strip() for m in c.maps[split] for d in np.split(m, np.flatnonzero(m == c.end))}

def held(c): return (documents(c, 'validation') | documents(c, 'test')) - {''}

def test_no_document_is_in_two_splits_or_twice(tmp_path):
    texts = [f'document number {i}' for i in range(300)]
    again = [t.replace(' ', '  ') for t in texts[:50]]
    c = corpus(jsonl(tmp_path/'d.jsonl', texts + again), block_size=16, cache=tmp_path, progress=False)
    found = [documents(c, s) - {''} for s in SPLIT_NAMES]
    assert c.about['copies'] == 50 and c.about['documents'] == 300
    assert set.union(*found) == set(texts) and sum(map(len, found)) == 300

@pytest.mark.parametrize('kind', ['jsonl', 'json.gz', 'parquet', 'txt'])
def test_local_files_by_the_code_that_reads_large_corpora(tmp_path, kind):
    datasets = pytest.importorskip('datasets')
    texts, d = [f'Row {i}: ' + 'words and words ' * (i % 5 + 1) for i in range(120)], tmp_path/'data'
    d.mkdir()
    if kind == 'jsonl': jsonl(d/'x.jsonl', texts)
    if kind == 'json.gz': # as C4 is published, in several files
        for i in range(3): (d/f'c4-train.{i:05d}-of-00003.json.gz').write_bytes(gzip.compress(''.join(json.dumps(dict(text=t, timestamp='2019', url='u')) + '\n' for t in texts[i::3]).encode()))
    if kind == 'parquet': datasets.Dataset.from_dict(dict(content=texts)).to_parquet(d/'x.parquet')
    if kind == 'txt':
        for i, t in enumerate(texts): (d/f'{i:03d}.txt').write_text(t, encoding='utf-8')
    c = corpus(str(d), block_size=32, cache=tmp_path/'cache', progress=False)
    assert set.union(*(documents(c, s) for s in SPLIT_NAMES)) - {''} == {t.strip() for t in texts}
    s = Stream(str(d)) # stopped and gone on with, between files too
    first = list(islice(s, 50))
    assert first + list(Stream(str(d), state=s.where())) == list(Stream(str(d)))

@pytest.mark.parametrize('shuffle', [3, None])
def test_preparing_goes_on_after_an_interruption(tmp_path, shuffle):
    pytest.importorskip('datasets')
    path, b = jsonl(tmp_path/'d.jsonl', [f'This is document {i}.' for i in range(400)]), Bytes()
    about = dict(source='d')
    prepare(Stream(path, shuffle=shuffle, buffer=50), tmp_path/'whole', b, about, shard=1000, progress=False)
    def cut(s):
        for i, t in enumerate(s):
            if i == 230: raise KeyboardInterrupt
            yield t
    class Cut:
        def __init__(self, s): self.s, self.where = s, s.where
        def __iter__(self): return cut(self.s)
    with pytest.raises(KeyboardInterrupt): prepare(Cut(Stream(path, shuffle=shuffle, buffer=50)), tmp_path/'cut', b, about, shard=1000, progress=False)
    state = json.loads((tmp_path/'cut/part.json').read_text(encoding='utf-8'))['source']
    assert 0 < state['done'] < 230
    prepare(Stream(path, shuffle=shuffle, buffer=50, state=state), tmp_path/'cut', b, about, shard=1000, progress=False)
    a, c = (Corpus(tmp_path/k, 16) for k in ('whole', 'cut'))
    assert a.sha256 == c.sha256

def test_a_data_set_that_comes_as_a_program_is_read_from_its_parquet_export(tmp_path, monkeypatch):
    datasets = pytest.importorskip('datasets')
    load, asked = datasets.load_dataset, []
    pairs = [doc.split('\n') for doc in maths_problems(80)]
    files = dict(train=str(tmp_path/'train.parquet'), test=str(tmp_path/'test.parquet'))
    for k, some in dict(train=pairs[:60], test=pairs[60:]).items(): # as on the hub: b'...'
        datasets.Dataset.from_dict({c: [f'{(p[i] + chr(10)).encode()}' for p in some] for i, c in enumerate(('question', 'answer'))}).to_parquet(files[k])
    def hub(name, *args, **kwargs):
        asked.append((name, kwargs.get('data_files')))
        if name != 'parquet': raise RuntimeError('Dataset scripts are no longer supported, but found math_dataset.py')
        return load('parquet', data_files=files, streaming=True)
    monkeypatch.setattr(datasets, 'load_dataset', hub)
    c = corpus('mathematics', block_size=96, cache=tmp_path/'cache', progress=False)
    at = 'hf://datasets/deepmind/math_dataset@refs/convert/parquet/algebra__linear_1d'
    assert asked[:2] == [('deepmind/math_dataset', None), ('parquet', {k: f'{at}/{k}/*.parquet' for k in ('train', 'test')})]
    assert c.about['problems'] and held(c) == {'\n'.join(p) for p in pairs[60:]}
    assert documents(c, 'train') - {''} <= {'\n'.join(p) for p in pairs[:60]}

def test_several_modules_of_the_published_problems(tmp_path, monkeypatch):
    datasets, asked = pytest.importorskip('datasets'), []
    def module(name, config=None, **kw):
        asked.append(config)
        rows = [dict(question=f'{config} {i}?', answer=str(i)) for i in range(60)]
        return {k: datasets.IterableDataset.from_generator(lambda rows=some: iter(rows)) for k, some in dict(train=rows[:50], test=rows[50:]).items()}
    monkeypatch.setattr(datasets, 'load_dataset', module)
    c = corpus('mathematics:numbers__gcd+arithmetic__mul', block_size=32, cache=tmp_path, progress=False)
    assert set(asked) == {'numbers__gcd', 'arithmetic__mul'} and c.about['problems']
    for split in 'train', 'test': assert {d.split(' ')[0] for d in documents(c, split) - {''}} == set(asked)

def test_the_published_problems_from_their_files(tmp_path):
    pytest.importorskip('datasets')
    texts = list(maths_problems(200))
    for i, name in enumerate(('algebra__linear_1d', 'numbers__gcd_composed')): (tmp_path/f'{name}.txt').write_text('\n'.join(texts[100 * i:100 * i + 100]) + '\n', encoding='utf-8')
    c = corpus(str(tmp_path), block_size=96, cache=tmp_path/'cache', progress=False)
    assert c.about['problems'] and set.union(*(documents(c, s) for s in SPLIT_NAMES)) - {''} == set(texts)

class Oracle(torch.nn.Module):
    "Answers every question of `batch` right, but for those in `wrong`"
    def __init__(self, batch, vocab, wrong):
        super().__init__()
        self.known = {r.tobytes(): i for i, r in enumerate(batch.tokens.numpy())}
        self.logits = torch.nn.functional.one_hot(batch.targets.clamp(min=0), vocab).float()
        for i in wrong: self.logits[i, batch.score_mask[i].nonzero()[-2, 0]] *= -1 # the last sign of the answer
    def forward(self, tokens, at=None):
        out = self.logits[[self.known[r.tobytes()] for r in tokens.numpy()]]
        return out if at is None else out[at]

def test_a_problem_is_right_only_if_all_of_its_answer_is(tmp_path):
    c = corpus('maths', block_size=96, n=3000, cache=tmp_path, progress=False)
    b, docs = c.problems(40), documents(c, 'validation')
    for x, y, m in zip(b.tokens, b.targets, b.score_mask):
        question = c.tokenizer.decode(x).split('\n')[0]
        assert f'{question}\n{c.tokenizer.decode(y[m])}' in docs and y[m][-1] == c.end
    assert right_rows(Oracle(b, c.vocab_size, []), b).all()
    assert (~right_rows(Oracle(b, c.vocab_size, [3, 17]), b)).nonzero()[:, 0].tolist() == [3, 17]

# what a corpus is made of

LATIN = 'lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore magna aliqua'.split()
def prose(seed, n=60):
    "Words that no other seed says in this order"
    r = np.random.default_rng(seed)
    return ' '.join(f'{LATIN[i]}{seed}' if r.random() < .3 else LATIN[i] for i in r.integers(len(LATIN), size=n))

def folder(at, texts, name='{:03d}.txt', encoding='utf-8'):
    at.mkdir(parents=True, exist_ok=True)
    for i, t in enumerate(texts): (at/name.format(i)).write_text(t, encoding)
    return at

def said(c): return set.union(*(documents(c, s) for s in SPLIT_NAMES)) - {''}

def test_a_folder_is_read_by_its_name_and_not_as_a_pattern(tmp_path):
    for name, word in ('run1', 'other'), ('run[12]', 'mine'), ('run*', 'star'): folder(tmp_path/name, [f'{word} {i}' for i in range(20)])
    for name, word in ('run[12]', 'mine'), ('run*', 'star'):
        assert said(corpus(str(tmp_path/name), block_size=8, cache=tmp_path/'cache', progress=False)) == {f'{word} {i}' for i in range(20)}

@pytest.mark.parametrize('again', ['utf-8-sig', 'crlf', 'accents'])
def test_the_same_text_written_otherwise_is_a_copy(tmp_path, again):
    texts = [f'{i} caf\u00e9\n{prose(i)}' for i in range(60)]
    folder(tmp_path/'d', texts)
    if again == 'utf-8-sig': folder(tmp_path/'d', texts, 'again-{}.txt', again)
    if again == 'crlf': folder(tmp_path/'d', [t.replace('\n', '\r\n') for t in texts], 'again-{}.txt')
    if again == 'accents': folder(tmp_path/'d', [t.replace('\u00e9', 'e\u0301') for t in texts], 'again-{}.txt')
    c = corpus(str(tmp_path/'d'), block_size=16, cache=tmp_path/'cache', progress=False)
    assert (c.about['documents'], c.about['copies']) == (60, 60)
    assert not any('\ufeff' in t for t in said(c))

def test_hidden_copies_are_left_alone_and_links_followed_once(tmp_path):
    texts = [prose(i) for i in range(40)]
    folder(tmp_path/'d/sub', texts[:20])
    folder(tmp_path/'elsewhere', texts[20:])
    for hidden in '.ipynb_checkpoints', '.git', '__pycache__': folder(tmp_path/'d/sub'/hidden, [t + ' once more' for t in texts])
    os.symlink(tmp_path/'elsewhere', tmp_path/'d/link', target_is_directory=True)
    os.symlink(tmp_path/'d', tmp_path/'d/sub/round', target_is_directory=True) # a circle
    os.symlink(tmp_path/'d/sub/000.txt', tmp_path/'d/zero.txt')
    c = corpus(str(tmp_path/'d'), block_size=16, cache=tmp_path/'cache', progress=False)
    assert said(c) == set(texts) and c.about['copies'] == 0

@pytest.mark.parametrize('encoding', ['utf-16', 'utf-16-le', 'utf-16-be', 'utf-32', 'latin1'])
def test_the_advice_for_another_encoding_gives_the_text(tmp_path, encoding):
    text = 'caf\u00e9, two lines\nof it, and some more words'
    folder(tmp_path/'d', [text], 'x.txt', encoding)
    with pytest.raises(ValueError, match=r'x\.txt is not UTF-8.*iconv -f \S+ -t utf-8') as e: corpus(str(tmp_path/'d'), cache=tmp_path/'cache', progress=False)
    advised = str(e.value).split('iconv -f ')[1].split()[0]
    assert (tmp_path/'d/x.txt').read_bytes().decode(advised).lstrip('\ufeff') == text # what iconv would write

def test_lines_that_only_look_odd(tmp_path):
    lines = ['{"text": "one"}', '', '   ', '{"text": null}', '{"text": "two", "score": [1, 2], "meta": {"a": 1}}', '{"url": "u", "text": "three"}', '{"text": ""}']
    (tmp_path/'x.jsonl').write_text('\n'.join(lines), 'utf-8')
    c = corpus(str(tmp_path/'x.jsonl'), block_size=2, cache=tmp_path/'cache', progress=False)
    assert said(c) == {'one', 'two', 'three'} and c.about['empty'] == 2

@pytest.mark.parametrize('bad', ['{"text": "cut', 'null', '[]', '{"title": "t"}', '{"text": 3}'])
def test_a_bad_line_late_in_a_file_is_named_before_anything_is_learnt(tmp_path, monkeypatch, bad):
    from proc_nb.language import corpus as corpora
    monkeypatch.setattr(corpora, 'train_bpe', lambda *args: pytest.fail('the encoding was learnt first'))
    folder(tmp_path/'d', ['\n'.join(json.dumps(dict(text=prose(i))) for i in range(20))], 'a.jsonl')
    (tmp_path/'d/b.jsonl').write_text('\n'.join([*(json.dumps(dict(text=prose(i))) for i in range(20, 320)), '', bad, '{"text": "last"}']), encoding='utf-8')
    with pytest.raises(ValueError, match=r'b\.jsonl, line 302: '): corpus(str(tmp_path/'d'), 'bpe:300', 16, cache=tmp_path/'cache', progress=False)

def test_near_duplicates_are_on_one_side(tmp_path):
    texts = [prose(i) for i in range(150)]
    edited = [' '.join(['Edited:', *t.split()[:30], 'something', 'else', *t.split()[30:]]) for t in texts]
    within = [f'{prose(1000 + i)}\n\n{t}\n\n{prose(2000 + i)}' for i, t in enumerate(texts)]
    c = corpus(jsonl(tmp_path/'d.jsonl', [*texts, *edited, *within]), block_size=16, cache=tmp_path/'cache', progress=False)
    home = {t: s for s in SPLIT_NAMES for t in documents(c, s)}
    assert len(home) - ('' in home) == 450
    assert all(home[a] == home[b] == home[w] for a, b, w in zip(texts, edited, within))
    assert {home[t] for t in texts} == set(SPLIT_NAMES)
    old = corpus(str(tmp_path/'d.jsonl'), block_size=16, cache=tmp_path/'cache', progress=False, held_out='documents')
    home = {t: s for s in SPLIT_NAMES for t in documents(old, s)}
    assert sum(home[a] != home[b] for a, b in zip(texts, edited)) > 10, 'the measure would not have noticed'

def test_a_problem_in_other_words_is_on_the_same_side():
    numbers = lambda t: tuple(re.findall(r'\d+', t))
    c = corpus('maths', block_size=96, n=20_000, progress=False)
    home = {}
    for s in SPLIT_NAMES:
        for t in documents(c, s) - {''}: home.setdefault(numbers(t), set()).add(s)
    assert max(map(len, home.values())) == 1 and len(home) < c.about['documents']

def test_a_large_cluster_is_for_training(tmp_path):
    many = [f'{prose(i)} {prose(10_000, 200)}' for i in range(40)]
    c = corpus(jsonl(tmp_path/'d.jsonl', [*many, *(prose(i) for i in range(100, 300))]), block_size=16, cache=tmp_path/'cache', progress=False)
    assert set(many) <= documents(c, 'train') and held(c)

@pytest.mark.parametrize('names', [('train/{:03d}.txt', 'valid/{:03d}.txt', 'test/{:03d}.txt'), ('train-{:03d}.txt', 'val-{:03d}.txt', 'test-{:03d}.txt')])
def test_held_out_parts_of_a_folder_are_used(tmp_path, names):
    parts = dict(train=range(60), validation=range(100, 110), test=range(200, 210))
    for (k, some), name in zip(parts.items(), names):
        for i in some:
            (f := tmp_path/'d'/name.format(i)).parent.mkdir(parents=True, exist_ok=True)
            f.write_text(prose(i), encoding='utf-8')
    near = tmp_path/'d'/names[0].format(900)
    near.write_text('Copied: ' + prose(105) + ' and so on', encoding='utf-8')
    c = corpus(str(tmp_path/'d'), block_size=16, cache=tmp_path/'cache', progress=False)
    assert {k: documents(c, k) - {''} for k in parts} == {k: {prose(i) for i in some} for k, some in parts.items()}
    assert c.about['near'] == 1
    (tmp_path/'d/notes.txt').write_text(prose(1), encoding='utf-8') # not all files say their part
    assert len(Stream(str(tmp_path/'d')).parts) == 1

class Rows(list):
    "What `datasets` gives of a part, read from here"
    column_names = None
    def state_dict(self): return {}

def test_held_out_parts_of_a_data_set_are_used(tmp_path, monkeypatch):
    datasets, sets = pytest.importorskip('datasets'), {}
    sets['allenai/c4'] = dict(train=[prose(i) for i in range(50)] + [prose(77)], validation=[prose(i) for i in range(70, 90)])
    sets['codeparrot/codeparrot-clean'] = dict(train=[prose(i) for i in range(50)])
    sets['codeparrot/codeparrot-clean-valid'] = dict(train=[prose(i) for i in range(70, 90)])
    sets['some/other'] = dict(train=[prose(i) for i in range(200)])
    monkeypatch.setattr(datasets, 'load_dataset', lambda name, config=None, **kw: {k: Rows(dict(text=t) for t in ts) for k, ts in sets[name].items()})
    for name in 'c4', 'codeparrot':
        c = corpus(name, block_size=16, cache=tmp_path/name, progress=False)
        assert held(c) == {prose(i) for i in range(70, 90)} and documents(c, 'validation') - {''} and documents(c, 'test') - {''}
        assert documents(c, 'train') - {''} == {prose(i) for i in range(50)}
    c = corpus('some/other', block_size=16, cache=tmp_path/'other', progress=False)
    assert 8 < len(held(c)) < 50

def test_wikitext_is_articles(tmp_path, monkeypatch):
    datasets = pytest.importorskip('datasets')
    def lines(i): return ['', f' = Article {i} = \n', '', f' {prose(i)} \n', '', ' = = Part = = \n', f' {prose(5000 + i)} \n']
    sets = {k: [l for i in some for l in lines(i)] for k, some in dict(train=range(40), validation=range(40, 46), test=range(46, 52)).items()}
    monkeypatch.setattr(datasets, 'load_dataset', lambda name, config=None, **kw: {k: Rows(dict(text=l) for l in ls) for k, ls in sets.items()})
    c = corpus('wikitext', block_size=16, cache=tmp_path/'cache', progress=False)
    found = {k: {re.search(r'Article (\d+)', t)[1] for t in documents(c, k) - {''}} for k in SPLIT_NAMES}
    assert {k: sorted(map(int, v)) for k, v in found.items()} == dict(train=list(range(40)), validation=list(range(40, 46)), test=list(range(46, 52)))
    for k, name in dict(train='train', validation='valid', test='test').items(): # the published files
        (tmp_path/'files').mkdir(exist_ok=True)
        (tmp_path/f'files/wiki.{name}.tokens').write_text(''.join(l or '\n' for l in sets[k]), encoding='utf-8')
    here = corpus(str(tmp_path/'files'), block_size=16, cache=tmp_path/'cache', progress=False)
    assert {k: {re.search(r'Article (\d+)', t)[1] for t in documents(here, k) - {''}} for k in SPLIT_NAMES} == found

@pytest.mark.parametrize('name, write', [('x.csv', 'text,n\n"a, b",1\n"c ""d""",2\n,3\n'), ('x.tsv', 'n\ttext\n1\ta, b\n2\tc "d"\n'), ('x.json', '[{"text": "a, b"}, {"text": "c \\"d\\""}]')])
def test_tables_and_lists(tmp_path, name, write):
    (tmp_path/name).write_text(write.replace('c "d"', '"c ""d"""') if name == 'x.tsv' else write, encoding='utf-8')
    assert said(corpus(str(tmp_path/name), block_size=2, cache=tmp_path/'cache', progress=False)) == {'a, b', 'c "d"'}

def test_a_project_of_python_files(tmp_path):
    folder(tmp_path/'d/pkg', [f'# coding: latin1\nx{i} = "caf\u00e9 {i}"' for i in range(30)], '{}.py', 'latin1')
    (tmp_path/'d/README.md').write_text('Words', encoding='utf-8')
    with pytest.raises(ValueError, match='holds text and code documents; say which are meant'): corpus(str(tmp_path/'d'), cache=tmp_path/'cache', progress=False)
    c = corpus(str(tmp_path/'d'), block_size=8, cache=tmp_path/'cache', progress=False, kind='code')
    assert said(c) == {f'# coding: latin1\nx{i} = "caf\u00e9 {i}"' for i in range(30)}

def test_files_are_written_and_read_in_utf8_whatever_the_machine_says(tmp_path):
    code = rf"""
import warnings
warnings.filterwarnings('error', category=EncodingWarning, module=r'proc_nb\.(corpus|pretrain)|pathlib')
from proc_nb.files import *
from proc_nb.language.tokenizers import *
from proc_nb.language.sources import *
from proc_nb.language.corpus import *
from proc_nb.tasks.controls import *
from proc_nb.language.model import *
from proc_nb.language.plan import *
from proc_nb.language.lm_run import *
from proc_nb.language.pretrain import *
from proc_nb.language.cli import *
data = corpus('maths', 'bpe:300', 32, n=500, cache={str(tmp_path)!r})
*_, last = pretrain(data, size='tiny', steps=2, eval_every=1, eval_rows=2, batch_size=2, run_dir={str(tmp_path/'run')!r}, device='cpu')
list(pretrain(data, size='tiny', steps=3, eval_every=1, eval_rows=2, batch_size=2, run_dir={str(tmp_path/'run')!r}, device='cpu', resume=True))
"""
    done = subprocess.run([sys.executable, '-X', 'warn_default_encoding', '-c', code], env=ENV, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

def test_tokenizers_agree_with_the_text(tmp_path):
    pytest.importorskip('tokenizers')
    transformers = pytest.importorskip('transformers')
    c = corpus('maths', 'bpe:400', 32, n=2000, progress=False)
    text = 'Solve 3*x - 7 = 11 for x.\n6 né'
    assert c.vocab_size == 400 and c.tokenizer.decode(c.tokenizer.encode(text)) == text
    tok = transformers.PreTrainedTokenizerFast(tokenizer_object=c.tokenizer.tok, eos_token='<|endoftext|>')
    tok.save_pretrained(tmp_path)
    same = gpt2_tokenizer(str(tmp_path))
    assert same.encode(text).tolist() == c.tokenizer.encode(text).tolist() and same.end == c.tokenizer.end
    with pytest.raises(ValueError, match='neither a folder here'): gpt2_tokenizer(str(tmp_path/'nothing'))

def test_rows_say_the_documents(data):
    stream = np.concatenate([data.rows_of(range(data.n_rows())).tokens.flatten().numpy()])
    assert np.array_equal(stream, data.maps['train'][0][:len(stream)])
    b = data.rows_of([3, 0])
    assert torch.equal(b.targets[:, :-1], b.tokens[:, 1:]) and not b.loss_mask[b.tokens == data.end].any() and b.loss_mask[b.tokens != data.end].all()

@pytest.mark.parametrize('make,word', [(lambda d: (d/'x.txt').write_bytes('caf\u00e9'.encode('latin1')), 'is not UTF-8'), (lambda d: (d/'x.txt').write_text('  \n', encoding='utf-8'), 'is empty'),
    (lambda d: (d/'x.bin').write_text('a', encoding='utf-8'), 'holds no documents'), (lambda d: (d/'x.jsonl').write_text('{"title": "no text"}\n', encoding='utf-8'), "A row needs 'text'")])
def test_documents_that_cannot_be_read(tmp_path, make, word):
    pytest.importorskip('datasets')
    (tmp_path/'d').mkdir()
    make(tmp_path/'d')
    with pytest.raises(ValueError, match=word): corpus(str(tmp_path/'d'), cache=tmp_path/'cache', progress=False)
    assert not list((tmp_path/'cache').glob('d-*'))

def test_too_little_text(tmp_path):
    c = corpus(jsonl(tmp_path/'d.jsonl', ['short']), block_size=64, cache=tmp_path, progress=False)
    with pytest.raises(ValueError, match='too little text'): Pretraining(c, size='tiny')

@pytest.mark.parametrize('split', ['train', 'validation'])
def test_one_long_document_is_refused_before_the_warm_up(tmp_path, split):
    pytest.importorskip('datasets')
    text = next(t for i in range(99) if split_by_key(document_key(t := f'{i} ' + 'many words ' * 99)) == ('train' if split == 'validation' else 'validation'))
    c = corpus(jsonl(tmp_path/'d.jsonl', [text]), block_size=64, cache=tmp_path, progress=False)
    with pytest.raises(ValueError, match=f"tokens of 1 documents.*in the split '{split}'.*use more documents"): Pretraining(c, 'set', 'tiny', length=6)

def test_two_commands_prepare_a_corpus_once(tmp_path, capsys):
    pytest.importorskip('datasets')
    path, cache = jsonl(tmp_path/'d.jsonl', [f'document {i}' for i in range(90)]), tmp_path/'cache'
    one = corpus(path, block_size=8, cache=tmp_path/'other', progress=False)
    second = threading.Thread(target=lambda: corpus(path, block_size=8, cache=cache, progress=False))
    with file_lock(cache/one.folder.name):
        second.start()
        time.sleep(.5)
        assert second.is_alive() and not list(cache.glob('.*.part'))
    second.join(30)
    assert 'is being prepared by another process: waiting' in capsys.readouterr().err
    assert corpus(path, block_size=8, cache=cache, progress=False).sha256 == one.sha256

def test_what_a_killed_preparation_left_is_taken_away(tmp_path):
    how = dict(block_size=32, n=300, cache=tmp_path, progress=False)
    whole = corpus('maths', **how)
    os.rename(whole.folder, part := whole.folder.with_name(f'.{whole.folder.name}.part')) # killed before the folder got its name
    (part/'corpus.json').rename(part/'part.json')
    assert corpus('maths', **how).sha256 == whole.sha256 and not part.exists()

@pytest.mark.parametrize('how,word', [(dict(max_tokens=0), 'max_tokens must be a whole number of at least 1, not 0'), (dict(tokenizer='bpe:x'), 'as in bpe:2048'), (dict(tokenizer='bpe:9'), 'at least 257')])
def test_settings_of_a_corpus_that_make_no_sense(tmp_path, how, word):
    with pytest.raises(ValueError, match=word): corpus('maths', n=300, cache=tmp_path, progress=False, **how)

@pytest.mark.parametrize('how,word', [(lambda b: b[:-5], 'damaged or cut short'), (lambda b: b[:-9] + b'\1' + b[-8:], 'damaged or cut short'), (None, 'is missing')])
def test_a_broken_token_file(tmp_path, how, word):
    c = corpus('maths', block_size=32, n=300, cache=tmp_path, progress=False)
    file = c.folder/c.shards['train'][0]['file']
    file.write_bytes(how(file.read_bytes())) if how else file.unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=word): corpus('maths', block_size=32, n=300, cache=tmp_path)

# ---- training

def small(**kwargs): return dict(rule='set', size='tiny', length=6, steps=8, warm_steps=4, warm_batch=8, batch_size=8, eval_every=4, eval_rows=8, device='cpu', **kwargs)

def command(out, *more, processes=1, launcher='torch'):
    own = ['-m', 'proc_nb.language.cli', '--corpus', 'maths', '--rule', 'set', '--size', 'tiny', '--length', '6', '--warm-steps', '4', '--batch-size', '8', '--device', 'cpu', '--block', '32', '--out', str(out), *map(str, more)]
    if processes == 1: return [sys.executable, *own]
    if launcher == 'accelerate': return [sys.executable, '-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes', str(processes), '--main_process_port', '0', *own]
    return [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(processes), *own]

def go(*args, **kwargs): return subprocess.run(command(*args, **kwargs), env=ENV, capture_output=True, text=True, timeout=170)

def logged(out): return [json.loads(l) for l in (Path(out)/'log.jsonl').read_text(encoding='utf-8').splitlines()]

def until(test, process, seconds=100):
    "Wait until `test` holds"
    end = time.time() + seconds
    while not test():
        assert process.poll() is None and time.time() < end, process.communicate()
        time.sleep(.02)

@pytest.fixture(scope='module')
def uninterrupted(data, tmp_path_factory):
    out = tmp_path_factory.mktemp('one')/'run'
    done = go(out, '--steps', 40, '--eval-every', 10)
    assert done.returncode == 0, done.stderr
    return out

def same_curve(a, b, rtol=0.):
    assert [(r['phase'], r['step'], r['tokens'], r['lr']) for r in a] == [(r['phase'], r['step'], r['tokens'], r['lr']) for r in b]
    for k in 'loss', 'validation', 'accuracy':
        pairs = [(x[k], y[k]) for x, y in zip(a, b) if x.get(k) is not None]
        assert pairs and all(math.isclose(x, y, rel_tol=rtol, abs_tol=0 if k != 'accuracy' else rtol and .02) for x, y in pairs), (k, pairs)

def test_killed_and_resumed_is_the_same_run(uninterrupted, tmp_path):
    out = tmp_path/'run'
    p = subprocess.Popen(command(out, '--steps', 40, '--eval-every', 10), env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: (out/'log.jsonl').exists() and len((out/'log.jsonl').read_text(encoding='utf-8').splitlines()) > 4 + 23, p)
    p.send_signal(signal.SIGKILL)
    p.communicate()
    assert len(logged(out)) < 44
    done = go(out, '--steps', 40, '--eval-every', 10, '--resume')
    assert done.returncode == 0, done.stderr
    same_curve(logged(out), logged(uninterrupted))
    assert all(torch.equal(a, b) for a, b in zip(load_lm(out).parameters(), load_lm(uninterrupted).parameters()))

def test_a_run_that_died_before_it_wrote_its_results_writes_them(uninterrupted, tmp_path):
    out = tmp_path/'run'
    shutil.copytree(uninterrupted, out)
    (out/'results.json').unlink()
    first, second = (go(out, '--steps', 40, '--eval-every', 10, '--resume') for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert 'finished already' not in first.stdout and 'finished already' in second.stdout
    was, now = (json.loads((d/'results.json').read_text(encoding='utf-8'))['last'] for d in (uninterrupted, out))
    assert {k: v for k, v in was.items() if now.get(k) != v and k != 'sum'} == {}

def test_two_processes_are_one_run(uninterrupted, tmp_path):
    done = go(tmp_path/'run', '--steps', 40, '--eval-every', 10, processes=2, launcher='accelerate')
    assert done.returncode == 0, done.stderr
    same_curve(logged(tmp_path/'run'), logged(uninterrupted), rtol=2e-3)
    assert json.loads((tmp_path/'run/results.json').read_text(encoding='utf-8'))['processes'] == 2

def children(pid):
    "Processes started by `pid` and by those"
    found = []
    for f in Path('/proc').glob('[0-9]*/stat'):
        try:
            if int(f.read_text(encoding='utf-8').rsplit(')', 1)[1].split()[1]) == pid: found += [int(f.parent.name), *children(int(f.parent.name))]
        except (OSError, IndexError): pass
    return found

@pytest.mark.skipif(not Path('/proc/self/stat').exists(), reason='needs /proc')
def test_a_worker_that_dies_loses_nothing(uninterrupted, tmp_path):
    out = tmp_path/'run'
    p = subprocess.Popen(command(out, '--steps', 2000, '--eval-every', 10, processes=2), env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: (out/'log.jsonl').exists() and len((out/'log.jsonl').read_text(encoding='utf-8').splitlines()) > 4 + 12, p)
    os.kill(max(children(p.pid)), signal.SIGKILL)
    said = p.communicate(timeout=90)[1]
    assert p.returncode != 0 and 'SIGKILL' in said
    assert 'another process of this run has died' in said or 'SIGTERM' in said, said # the launcher may end the others before they notice
    last = checkpoints(out/'language')[-1]
    step = json.loads((last/'run.json').read_text(encoding='utf-8'))['done']
    assert 10 <= step < 2000
    done = go(out, '--steps', step + 3, '--eval-every', 10, '--resume') # two processes saved, one goes on
    assert done.returncode == 0, done.stderr
    ours, theirs = [r for r in logged(out) if r['phase'] == 'language'], [r for r in logged(uninterrupted) if r['phase'] == 'language']
    assert [r['step'] for r in ours] == list(range(1, step + 4))
    assert all(math.isclose(a['loss'], b['loss'], rel_tol=2e-3) for a, b in zip(ours, theirs))

def test_weights_spread_over_processes(data, tmp_path):
    own = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', str(Path(__file__).with_name('sharded_lm.py')), str(tmp_path)]
    done = subprocess.run(own, env=ENV, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    sharded = [float(x) for x in done.stdout.split()]
    run = LMRun(language_model(lm_config('tiny', data.vocab_size, 32)), data, engine('cpu'), batch_size=8)
    assert np.allclose([run.step() for _ in range(8)], sharded, rtol=1e-3)
    assert len(list(checkpoints(tmp_path)[-1].glob('shard-0000[12]*.safetensors'))) == 2
    one = LMRun(language_model(lm_config('tiny', data.vocab_size, 32), seed=3), data, engine('cpu'), batch_size=8)
    one.load(checkpoints(tmp_path)[-1]) # two processes saved, one goes on
    assert np.allclose([one.step() for _ in range(3)], sharded[5:], rtol=1e-3)

def test_an_interrupt_within_a_checkpoint_is_an_interrupt(data, tmp_path, monkeypatch):
    import torch.distributed.checkpoint as dcp
    def write(*args): raise KeyboardInterrupt
    monkeypatch.setattr(dcp.HuggingFaceStorageWriter, 'write_data', write)
    run = LMRun(language_model(lm_config('tiny', data.vocab_size, 32)), data, engine('cpu'), batch_size=8)
    with pytest.raises(KeyboardInterrupt): run.save(tmp_path)
    assert not checkpoints(tmp_path)

def test_a_full_disk_keeps_what_was_saved(data, tmp_path):
    code = f'''
import resource, signal, sys
from proc_nb.files import *
from proc_nb.language.tokenizers import *
from proc_nb.language.sources import *
from proc_nb.language.corpus import *
from proc_nb.tasks.controls import *
from proc_nb.language.model import *
from proc_nb.language.plan import *
from proc_nb.language.lm_run import *
from proc_nb.language.pretrain import *
from proc_nb.language.cli import *
data = corpus('maths', block_size=32, n=3000)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    for r in pretrain(data, rule='set', size='tiny', length=6, steps=8, warm_steps=4, warm_batch=8, batch_size=8, eval_every=4, eval_rows=8, device='cpu', run_dir={str(tmp_path/"run")!r}):
        if r.phase == 'language' and r.step == 4: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
except OSError as e: sys.exit(str(e))
'''
    done = subprocess.run([sys.executable, '-c', code], env=ENV, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and 'The disk is full' in done.stderr, done.stderr
    kept = checkpoints(tmp_path/'run/language')
    assert [k.name for k in kept] == ['step-00000004'] and not list((tmp_path/'run/language').glob('.step*'))
    assert [r.step for r in pretrain(data, run_dir=tmp_path/'run', resume=True, **small())] == [5, 6, 7, 8]

def test_a_corpus_on_a_full_disk(tmp_path):
    code = f'''
import resource, signal, sys
from proc_nb.files import *
from proc_nb.language.tokenizers import *
from proc_nb.language.sources import *
from proc_nb.language.corpus import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try: corpus('maths', cache={str(tmp_path)!r})
except OSError as e: sys.exit(str(e))
'''
    done = subprocess.run([sys.executable, '-c', code], env=ENV, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and 'The disk is full' in done.stderr, done.stderr
    assert {p.suffix for p in tmp_path.iterdir()} <= {'.lock'}

def test_a_checkpoint_of_another_configuration(data, tmp_path):
    list(pretrain(data, run_dir=tmp_path, **small()))
    with pytest.raises(ValueError, match='lr was 0.002 and is now 0.5'): list(pretrain(data, run_dir=tmp_path, resume=True, lr=.5, **{**small(), 'steps': 9}))
    other = corpus('maths', block_size=32, n=3000, seed=1, progress=False)
    with pytest.raises(ValueError, match='sha256 was'): list(pretrain(other, run_dir=tmp_path, resume=True, **{**small(), 'steps': 9}))
    last = checkpoints(tmp_path/'language')[-1]
    file = next(last.glob('*.safetensors'))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match='is cut short'): list(pretrain(data, run_dir=tmp_path, resume=True, **{**small(), 'steps': 9}))

def test_a_checkpoint_that_does_not_say_what_it_came_from_is_gone_on_with(data, tmp_path):
    list(pretrain(data, run_dir=tmp_path, **small()))
    file = checkpoints(tmp_path/'language')[-1]/'run.json'
    about = {k: v for k, v in json.loads(file.read_text(encoding='utf-8')).items() if k != 'sum'}
    assert about['run'].pop('origin')['parts'] == ['attn', 'ln', 'mlp']
    file.write_text(json.dumps(about), encoding='utf-8')
    assert [r.step for r in pretrain(data, run_dir=tmp_path, resume=True, **{**small(), 'steps': 9})] == [9]

def test_vocabularies_that_do_not_match(data):
    with pytest.raises(ValueError, match='they must agree'): pretrain(data, parts=['attn', 'tok'], **small())
    with pytest.raises(ValueError, match='vocab_size 99'): list(pretrain(data, init=language_model(lm_config('tiny', 99, 32)), **small()))

def test_a_head_of_its_own_is_refused_at_once(data):
    with pytest.raises(ValueError, match='has a head of its own'): Pretraining(data, init=loud(language_model(lm_config('tiny', data.vocab_size, 32, tied=False))), **small())
    gpt = GPT(GPTConfig(data.vocab_size, 32, 2, 4, 64))
    gpt.lm_head.weight.data = gpt.wte.weight.data.clone()
    assert torch.equal(Pretraining(data, None, 'tiny', init=gpt).begin().wte.weight, gpt.wte.weight) # a head that is equal is no head of its own

@pytest.mark.parametrize('n,word', [(3, r'batch_size \(8\) must be a multiple'), (64, r'batch_size \(8\)'), (2, r'warm_batch \(9\) must be a multiple'), (1000, 'too little text for 1000')])
def test_processes_that_cannot_share_are_refused_before_the_warm_up(data, monkeypatch, n, word):
    monkeypatch.setattr(pretraining, 'engine', lambda *args: argparse.Namespace(num_processes=n, device=torch.device('cpu')))
    more = dict(batch_size=1000, warm_batch=1000) if n == 1000 else dict(warm_batch=9) if n == 2 else {}
    with pytest.raises(ValueError, match=word): Pretraining(data, **{**small(), **more}).start()

@pytest.mark.parametrize('kw,word', [(dict(micro=0), 'micro must'), (dict(save_every=0), 'save_every must'), (dict(lr=0), 'lr must lie'), (dict(lr=math.nan), 'lr must lie'), (dict(warm_lr=0.), 'warm_lr must lie'),
    (dict(rule=None, parts=['mpl']), "Did you mean 'mlp'")])
def test_settings_that_make_no_sense(data, kw, word):
    with pytest.raises((ValueError, KeyError), match=word): Pretraining(data, **{**small(), **kw})

def test_only_named_parts_are_carried_over(data):
    p = Pretraining(data, parts=('mlp',), **small())
    records = p.records()
    while next(records).phase == 'warm-up': pass
    now, fresh = p.begin().state_dict(), language_model(p.config, seed=0).state_dict()
    assert all(torch.equal(now[k], p.source.state_dict()[k] if part_of(k) == 'mlp' else fresh[k]) for k in now if part_of(k) != 'pos')

@pytest.mark.full
def test_a_compiled_network_learns_the_same(data, tmp_path):
    found = torch._dynamo.utils.counters
    found.clear()
    runs = [LMRun(language_model(lm_config('tiny', data.vocab_size, 32)), data, engine('cpu'), batch_size=8, compile=k) for k in (False, True)]
    eager, compiled = ([r.step() for _ in range(6)] for r in runs)
    assert found['stats']['unique_graphs'] > 0, 'nothing was compiled'
    assert np.allclose(eager, compiled, rtol=1e-4)
    assert math.isclose(runs[0].measure(16)['validation'], runs[1].measure(16)['validation'], rel_tol=1e-4)
    again = LMRun(language_model(lm_config('tiny', data.vocab_size, 32), seed=5), data, engine('cpu'), batch_size=8)
    again.load(runs[1].save(tmp_path)) # saved compiled, goes on as it is
    assert math.isclose(again.step(), runs[1].step(), rel_tol=1e-4)
    done = go(tmp_path/'run', '--steps', 4, '--eval-every', 4, '--compile')
    assert done.returncode == 0, done.stderr
    eager = go(tmp_path/'eager', '--steps', 4, '--eval-every', 4)
    assert eager.returncode == 0, eager.stderr
    same_curve(logged(tmp_path/'run'), logged(tmp_path/'eager'), rtol=1e-3)

@pytest.mark.parametrize('apart', [True, False])
def test_fused_kernels_are_the_formulas(data, monkeypatch, apart):
    "The size `tiny`: loss, gradients and a step by PyTorch's fused attention and AdamW, and by the plain ones"
    from proc_nb.models import attention
    def plain(q, k, v, seen=None, causal=False): return attention.attention_map(q, k, attention.causal_mask(q.shape[-2], q.device) if causal else seen) @ v
    def a_step(fused):
        run = LMRun(language_model(lm_config('tiny', data.vocab_size, 32)), data, engine('cpu'), batch_size=8, isolate=apart, clip=math.inf)
        for g in run.opt.param_groups: g.update(fused=fused, foreach=False)
        return run.step(), run.norm, run.tensors()
    loss, norm, there = a_step(True)
    monkeypatch.setattr(attention, 'fused_attention', plain)
    found = a_step(False)
    assert math.isclose(found[0], loss, rel_tol=1e-6) and math.isclose(found[1], norm, rel_tol=1e-5)
    for k, x in found[2].items(): torch.testing.assert_close(x, there[k], atol=2e-6 if k.startswith('model') else 1e-7, rtol=1e-4, msg=k) # the mean after a step is a tenth of the gradient

@pytest.mark.parametrize('kw', [dict(bf16=True), dict(remat=True), dict(micro=3), dict(isolate=False)])
def test_other_ways_to_train_learn_alike(data, kw):
    usual, other = ([r.loss for r in pretrain(data, **small(**k))] for k in ({}, kw))
    assert np.allclose(usual, other, rtol=.02) and all(math.isfinite(x) for x in other)

def test_nothing_of_a_checkpoint_is_a_pickle(data, tmp_path):
    list(pretrain(data, run_dir=tmp_path, **small()))
    kinds = {p.suffix for p in tmp_path.rglob('*') if p.is_file() and p.name != '.lock' and 'tfevents' not in p.name}
    assert kinds == {'.safetensors', '.json', '.jsonl'}

def test_tensorboard_if_it_is_there(data, tmp_path):
    pytest.importorskip('tensorboard')
    list(pretrain(data, run_dir=tmp_path, **small()))
    assert list(tmp_path.rglob('*tfevents*'))

# ---- what a run is

def test_the_logged_rate_is_that_of_the_step(data, tmp_path):
    rates = [r.lr for r in pretrain(data, run_dir=tmp_path, **small(warmup=4, warm_ramp=2, lr=.004, warm_lr=.002))]
    assert np.allclose(rates, [.001, .002, .002, .002, .001, .002, .003, .004, .004, .004, .004, .004])
    assert np.allclose([r['lr'] for r in logged(tmp_path)], rates)

def test_each_phase_has_its_own_schedule(data):
    found = [(r.phase, r.lr) for r in pretrain(data, **{**small(schedule='linear', warmup=0, lr=.008, warm_ramp=0, warm_lr=.004), 'warm_steps': 6})]
    assert np.allclose([lr for k, lr in found if k == 'warm-up'], .004)
    assert np.allclose([lr for k, lr in found if k == 'language'], [.001 * i for i in range(8, 0, -1)])

def test_short_practice_reaches_its_rate(data):
    for n in 10, 50, 500:
        p = Pretraining(data, **{**small(), 'warm_steps': n})
        assert lr_factor(n // 2, p.warm_ramp, p.warm_schedule, n) == 1

def test_a_schedule_ends_at_its_floor(data):
    rates = [r.lr for r in pretrain(data, **{**small(schedule='cosine', warmup=0, lr=.01, floor=.1), 'rule': None, 'steps': 12, 'decay_steps': 8})]
    assert np.allclose(rates[8:], .001) and rates[4] == pytest.approx(.0055)

def test_a_finished_run_is_extended(data, tmp_path):
    how = small(schedule='cosine', floor=.1, warmup=0)
    list(pretrain(data, run_dir=tmp_path, **how))
    more = list(pretrain(data, run_dir=tmp_path, resume=True, **{**how, 'steps': 11}))
    assert [r.step for r in more] == [9, 10, 11] and np.allclose([r.lr for r in more], .1 * .002)

def test_an_extension_at_rate_zero_is_refused(data, tmp_path):
    how = small(schedule='linear', warmup=0)
    list(pretrain(data, run_dir=tmp_path, **how))
    with pytest.raises(ValueError, match='came to zero at step 8.*--init'): list(pretrain(data, run_dir=tmp_path, resume=True, **{**how, 'steps': 11}))

def test_norms_and_biases_do_not_decay(data):
    run = LMRun(language_model(lm_config('tiny', data.vocab_size, 32)), data, engine('cpu'), batch_size=8, weight_decay=.5, betas=(.8, .9))
    by = {id(p): g for g in run.opt.param_groups for p in g['params']}
    assert {p.dim() for p in run.bare.parameters() if by[id(p)]['weight_decay']} == {2} and {p.dim() for p in run.bare.parameters() if not by[id(p)]['weight_decay']} == {1}
    assert {tuple(g['betas']) for g in run.opt.param_groups} == {(.8, .9)}

def test_gradient_and_memory_are_logged(data, tmp_path):
    list(pretrain(data, run_dir=tmp_path, **small()))
    rows = logged(tmp_path)
    assert all(r['norm'] > 0 and r['memory'] > 2**26 for r in rows)
    run = LMRun(language_model(lm_config('tiny', data.vocab_size, 32)), data, engine('cpu'), batch_size=8, clip=math.inf)
    batch = run.task.rows_of(run.task.rows_at(0, 8))
    x, kw = run.inputs(batch)
    (run.bare(x, **kw) / batch.loss_mask.sum()).backward()
    want = float(torch.nn.utils.get_total_norm([p.grad for p in run.bare.parameters()])) if hasattr(torch.nn.utils, 'get_total_norm') else float(sum(p.grad.square().sum() for p in run.bare.parameters()) ** .5)
    run.opt.zero_grad()
    run.step()
    assert run.norm == pytest.approx(want, rel=1e-4)

def test_dropout_is_in_both_phases(data):
    p = Pretraining(data, **small(dropout=.2))
    assert p.config.dropout == p.warm_config().dropout == .2
    a, b = ([r.loss for r in pretrain(data, **small(dropout=k))] for k in (0., .2))
    assert a != b and [r.loss for r in pretrain(data, **small(dropout=.2))] == b

@pytest.mark.parametrize('keep, left', [(1, [8]), (2, [6, 8]), (0, [2, 4, 6, 8])])
def test_how_many_checkpoints_are_kept(data, tmp_path, keep, left):
    list(pretrain(data, run_dir=tmp_path, keep=keep, **{**small(), 'eval_every': 2}))
    assert [int(c.name.split('-')[1]) for c in checkpoints(tmp_path/'language')] == left

def test_practice_ends_when_the_rule_is_kept(data, tmp_path):
    how = dict(small(warm_to=.2), rule='identity', length=2, warm_steps=400, eval_every=10, warm_batch=32, warm_lr=5e-3)
    recs = [r for r in pretrain(data, run_dir=tmp_path, **how) if r.phase == 'warm-up']
    seen = [r.accuracy for r in recs if r.accuracy is not None]
    assert seen[-1] >= .2 and all(x < .2 for x in seen[:-1]) and len(recs) == 10 * len(seen) < 400
    found = json.loads((tmp_path/'results.json').read_text(encoding='utf-8'))
    assert found['practice']['accuracy'] == pytest.approx(seen[-1]) and found['practice']['step'] == len(recs) and found['passes'] > 0
    again = list(pretrain(data, run_dir=tmp_path, resume=True, **{**how, 'steps': 9})) # practice is not taken up again
    assert [(r.phase, r.step) for r in again] == [('language', 9)]

def test_the_same_text_from_another_place_goes_on(tmp_path):
    for name in 'a', 'b':
        (tmp_path/name).mkdir()
        jsonl(tmp_path/name/'x.jsonl', [prose(i) for i in range(120)])
    one, two = (corpus(str(tmp_path/k/'x.jsonl'), block_size=32, cache=tmp_path/k, progress=False) for k in 'ab')
    assert one.sha256 == two.sha256 and one.about['source'] != two.about['source']
    how = dict(size='tiny', steps=2, batch_size=4, eval_every=1, eval_rows=2, device='cpu', run_dir=tmp_path/'run')
    list(pretrain(one, **how))
    assert [r.step for r in pretrain(two, resume=True, **{**how, 'steps': 3})] == [3]

def test_a_checkpoint_of_version_0_1_goes_on_as_it_was_begun(data, tmp_path):
    how = small(decay='all', warm_ramp=100)
    list(pretrain(data, run_dir=tmp_path, **how))
    file = checkpoints(tmp_path/'language')[-1]/'run.json'
    about = {k: v for k, v in json.loads(file.read_text(encoding='utf-8')).items() if k != 'sum'}
    for k in 'floor', 'betas', 'decay': about['run'].pop(k)
    for k in 'warm_to', 'warm_ramp', 'warm_schedule', 'warm_weight_decay': about['run']['origin'].pop(k)
    about['run']['corpus'] = 'maths'
    file.write_text(json.dumps(about), encoding='utf-8')
    with pytest.raises(ValueError, match="decay was 'all' and is now 'matrices'"): list(pretrain(data, run_dir=tmp_path, resume=True, **{**small(warm_ramp=100), 'steps': 9}))
    assert [r.step for r in pretrain(data, run_dir=tmp_path, resume=True, **{**how, 'steps': 9})] == [9]

@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_so(uninterrupted, tmp_path, number):
    out = tmp_path/'run'
    p = subprocess.Popen(command(out, '--steps', 5000, '--eval-every', 1000), env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: (out/'log.jsonl').exists() and len((out/'log.jsonl').read_text(encoding='utf-8').splitlines()) > 4 + 12, p)
    p.send_signal(number)
    said = p.communicate(timeout=90)[1]
    rows = [r for r in logged(out) if r['phase'] == 'language']
    assert p.returncode == 128 + number and f'stopped at step {rows[-1]["step"]:,} of language. It is saved' in said, said
    assert json.loads((checkpoints(out/'language')[-1]/'run.json').read_text(encoding='utf-8'))['done'] == rows[-1]['step'] == len(rows)
    done = go(out, '--steps', len(rows) + 3, '--eval-every', 1000, '--resume')
    assert done.returncode == 0, done.stderr
    ours, theirs = ([r for r in logged(o) if r['phase'] == 'language'] for o in (out, uninterrupted))
    assert len(ours) == len(rows) + 3 and [r['loss'] for r in ours[:40]] == [r['loss'] for r in theirs[:len(ours)]]

def test_without_a_folder_a_signal_says_that_nothing_is_saved(data, monkeypatch):
    p = Pretraining(data, **small())
    records = p.records()
    next(records)
    p.signals.asked = signal.SIGTERM
    with pytest.raises(KeyboardInterrupt, match='Nothing was saved'): next(records)

def test_a_launcher_that_starts_one_process_of_two_is_told(tmp_path):
    own = command(tmp_path/'run')[1:]
    done = subprocess.run([sys.executable, '-m', 'accelerate.commands.launch', '--num_processes', '2', *own], env=ENV, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and 'was asked for several processes and started only this one' in done.stderr, done.stderr
    assert not (tmp_path/'run').exists()

# ---- plans

def settings(plan): return plan.cfg, plan.steps, plan.batch_size, plan.micro, plan.bf16, plan.apart, plan.devices

@pytest.mark.parametrize('how', [dict(), dict(bf16=True), dict(micro=4, remat=True), dict(batch_size=32, dropout=.1, joined=True), dict(size='12-12-768')])
def test_the_plan_is_that_of_the_same_command(monkeypatch, how):
    from proc_nb.language.cli import _pretraining
    defaults = {k: v.default for k, v in inspect.signature(pretrain_cli).parameters.items()}
    monkeypatch.setattr(pretraining_cli, '_shared', lambda device, **what: Unread(what['name'], what['tokenizer'], what['block']))
    plan, run = (_pretraining(argparse.Namespace(**{**defaults, 'rule': 'set', 'device': 'cpu', 'corpus': 'c4', 'plan': k, **how})) for k in (True, False))
    assert settings(plan.plan()) == settings(run.plan()) and settings(plan.plan().warm) == settings(run.plan().warm)
    assert plan.plan().bf16 == bool(how.get('bf16')) and plan.plan().micro == how.get('micro', plan.batch_size)
    assert run.config == plan.plan().cfg and run.batch_size == plan.plan().batch_size

def test_a_gpu_can_be_named(capsys):
    kw = dict(size='12-12-768', plan=True, tokenizer='gpt2', device='cpu')
    said = {}
    for gpu, bf16 in ('H100', True), ('H100', False), ('T4', False):
        pretrain_cli(**kw, gpu=gpu, bf16=bf16)
        said[gpu, bf16] = capsys.readouterr().out
    assert '989 TFLOP/s' in said['H100', True] and '67 TFLOP/s' in said['H100', False] and 'of 16 GiB: too little' in said['T4', False]
    with pytest.raises(KeyError, match='no GPU'): pretrain_cli(**kw, gpu='H1000')

def test_logits_need_twelve_bytes_in_either_precision():
    for bf16 in True, False: assert Plan(lm_config('tiny', 50257), 1, 2, 2, bf16=bf16).memory['logits, or the block at work'] == 2 * 128 * 12 * 50257

def test_recomputation_costs_time_and_bf16_keeps_a_second_copy():
    plain, twice, half = (Plan(lm_config('laptop', 257, remat=r), 10, 16, 16, bf16=b) for r, b in ((0, 0), (1, 0), (0, 1)))
    assert twice.hours > 1.25 * plain.hours and 'weights in bf16' in half.memory and 'weights in bf16' not in plain.memory

def test_a_cpu_without_units_for_bf16_is_held_against_its_float32(monkeypatch):
    monkeypatch.setattr(pretraining_plan, '_matmul_speed', lambda device, kind: {torch.float32: 2e11, torch.bfloat16: 2e10}[kind])
    assert peak_flops('cpu', True) == peak_flops('cpu') == 2e11

@pytest.mark.skipif(sys.platform != 'linux', reason='measured with glibc')
@pytest.mark.parametrize('how', ['batch_size=32', 'batch_size=48, bf16=True', 'batch_size=48, remat=True', 'batch_size=16, dropout=.1', 'batch_size=32, micro=16'])
def test_planned_memory_is_what_is_used(how, tmp_path):
    code = f"""
import torch
torch.set_num_threads(1)
from proc_nb.files import *
from proc_nb.language.tokenizers import *
from proc_nb.language.sources import *
from proc_nb.language.corpus import *
from proc_nb.tasks.controls import *
from proc_nb.language.model import *
from proc_nb.language.plan import *
from proc_nb.language.lm_run import *
from proc_nb.language.pretrain import *
from proc_nb.language.cli import *
p = Pretraining(corpus('maths', block_size=256, n=8000, progress=False), None, 'laptop', steps=2, eval_every=2, eval_rows=16, device='cpu', {how}).start()
planned = p.plan().peak
for r in p.records(): pass
print(planned / peak_memory())
"""
    done = subprocess.run([sys.executable, '-c', code], env=ENV, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    assert .9 < float(done.stdout) < 1.1

# ---- exchange

def loud(model):
    g = torch.Generator().manual_seed(1)
    for p in model.parameters(): p.data = p.data + torch.randn(p.shape, generator=g) * .2
    return model.eval()

def test_a_hugging_face_folder_and_back(data, tmp_path):
    pytest.importorskip('transformers')
    for tied in True, False:
        model = loud(language_model(lm_config('tiny', data.vocab_size, 32, tied=tied)))
        x = data.rows_of(range(5)).tokens
        hf = to_hf(model)
        hf.save_pretrained(tmp_path/f'{tied}')
        again = load_lm(tmp_path/f'{tied}').eval()
        with torch.no_grad():
            torch.testing.assert_close(hf(x).logits, model(x), atol=1e-4, rtol=0)
            assert torch.equal(again(x), model(x)) and again.config.tied == tied

@pytest.mark.parametrize('wrap', [lambda s: s, lambda s: dict(model=s, optimizer={}, global_step=7), lambda s: dict(state_dict={f'module.{k}': v for k, v in s.items()})])
def test_the_papers_released_format(tmp_path, wrap):
    transformers = pytest.importorskip('transformers')
    sizes = dict(vocab_size=102, n_positions=33, n_embd=16, n_layer=2, n_head=4)
    hf = loud(transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=None, eos_token_id=None)))
    torch.save(wrap(hf.state_dict()), tmp_path/'checkpoint.pth')
    model, x = load_released(tmp_path/'checkpoint.pth', n_head=4).eval(), torch.randint(102, (3, 33), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(): torch.testing.assert_close(model(x), hf(x).logits, atol=1e-4, rtol=0)

class Trap:
    def __reduce__(self): return (pytest.fail, ('a pickle was executed',))

def test_a_pickle_is_not_executed(tmp_path):
    torch.save(dict(model=Trap()), tmp_path/'bad.pth')
    with pytest.raises(ValueError, match='plain tensors'): load_released(tmp_path/'bad.pth', 4)
    torch.save(dict(other=torch.zeros(3)), tmp_path/'odd.pth')
    with pytest.raises(ValueError, match='no wte.weight'): load_released(tmp_path/'odd.pth', 4)

def named(n_layer, width=4, **more):
    "The names and shapes of a released GPT-2"
    own = dict(zip('ln_1.weight ln_1.bias ln_2.weight ln_2.bias attn.c_proj.bias mlp.c_proj.bias'.split(), [torch.zeros(width)] * 6))
    own |= {'attn.c_attn.weight': torch.zeros(width, 3 * width), 'attn.c_attn.bias': torch.zeros(3 * width), 'attn.c_proj.weight': torch.zeros(width, width)}
    own |= {'mlp.c_fc.weight': torch.zeros(width, 4 * width), 'mlp.c_fc.bias': torch.zeros(4 * width), 'mlp.c_proj.weight': torch.zeros(4 * width, width)}
    ends = {'wte.weight': torch.zeros(9, width), 'wpe.weight': torch.zeros(5, width), 'ln_f.weight': torch.zeros(width), 'ln_f.bias': torch.zeros(width)}
    return {**ends, **{f'h.{i}.{k}': v.clone() for i in range(n_layer) for k, v in own.items()}, **more}

@pytest.mark.parametrize('more,word', [({'h.999999.ln_1.weight': torch.zeros(4)}, 'claims 192,000,056 weights'), ({'wpe.weight': torch.zeros(1, 4).expand(2**40, 4)}, 'bytes; the file holds'),
    ({'wte.weight': torch.zeros(9)}, 'does not hold a GPT-2'), ({'h.1.ln_1.weight': 3}, 'does not hold a GPT-2')])
def test_a_small_file_that_claims_a_giant(tmp_path, more, word):
    torch.save(named(2), tmp_path/'net.pth')
    assert load_released(tmp_path/'net.pth', 2).config.n_layer == 2
    torch.save(named(2, **more), tmp_path/'net.pth')
    with pytest.raises(ValueError, match=word): load_released(tmp_path/'net.pth', 2)
    with pytest.raises(ValueError, match='n_head must be'): load_released(tmp_path/'net.pth', 0)

def test_the_largest_plan(capsys):
    pretrain_cli(size='24-16-2048', tokenizer='gpt2', block=2048, plan=True, devices=16, sharded=True, rule='set', gpu='H100', bf16=True)
    said = capsys.readouterr().out
    assert '1,315,723,264' in said and 'memory per device' in said and 'minutes at 40%' in said

def test_mistakes_on_the_command_line():
    done = subprocess.run([sys.executable, '-m', 'proc_nb.language.cli', '--size', 'labtop'], env=ENV, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "Did you mean 'laptop'?" in done.stderr and 'Traceback' not in done.stderr

@pytest.mark.parametrize('e,word', [(KeyboardInterrupt(), 'stopped.*--resume'), (torch.OutOfMemoryError('CUDA out of memory.'), 'memory is too small.*--micro.*--remat.*--bf16'),
    (RuntimeError('[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer'), 'another process of this run has died .*--resume'), (RuntimeError('shapes'), None)])
def test_what_torch_raises_is_said_in_words(monkeypatch, e, word):
    def fails(**kwargs): raise e
    with pytest.raises(SystemExit if word else RuntimeError, match=word or 'shapes'): answer_pretrain(argparse.Namespace(parse_args=argparse.Namespace), fails)

# ---- options of the commands

class Told(Exception):
    "Carries what a run was told, by name"

def opened(*args, **kwargs):
    "In place of a corpus: what was asked for"
    found = inspect.signature(corpus).bind(*args, **kwargs).arguments
    found.update(found.pop('options', {}))
    return argparse.Namespace(tokenizer=f"learnt as {found['tokenizer']}", seq_len=found['block_size'], found=found)

def stopped_before(monkeypatch, module, name):
    "Let a command come as far as the run that it makes, and raise what that is told"
    real = inspect.signature(getattr(module, name))
    class Fake:
        def __init__(self, *args, **kwargs):
            self.__dict__.update(real.bind(*args, **kwargs).arguments)
            raise Told(vars(self))
    for used in module, importlib.import_module('proc_nb.language.cli'):
        if hasattr(used, name): monkeypatch.setattr(used, name, Fake)
    monkeypatch.setattr(pretraining_corpus, '_open', opened)

def settings_of(cli, **how):
    "What the run and its corpora are told, in one dict"
    with pytest.raises(Told) as e: cli(**how)
    told = e.value.args[0]
    found = {f'{k} {n}': v for k in ('data', 'other') if k in told for n, v in told[k].found.items()}
    return {**{k: v for k, v in told.items() if k not in ('data', 'other', 'kwargs')}, **told['kwargs'], **found}

OWN = dict(corpus='data source', tokenizer='data tokenizer', block='data block_size', max_tokens='data max_tokens', shuffle='data shuffle', packages='data packages', other='other source', out='run_dir', joined='isolate', kind='data kind', beta1='betas', beta2='betas')
PRETRAIN = dict(corpus='text', rule='set', parts='mlp', size='tiny', tokenizer='gpt2', schedule='cosine', warm_schedule='linear', init='a/folder', device='cpu', out='other', kind='code', decay='all',
    **dict.fromkeys('lr warm_lr warm_to weight_decay warm_weight_decay clip floor dropout beta1 beta2'.split(), .7),
    **dict.fromkeys('steps warm_steps warm_batch warm_ramp length block max_tokens shuffle batch_size micro warmup decay_steps seed eval_every eval_rows save_every keep'.split(), 7), **dict.fromkeys('packages bf16 remat compile joined resume'.split(), True))
LANGUAGE = dict(corpus='text', rule='union', size='laptop', tokenizer='gpt2', device='cpu', lr=.7, warm_lr=.7, other='maths',
    **dict.fromkeys('steps warm_steps warm_batch length max_tokens shuffle batch_size micro eval_every eval_rows seeds'.split(), 7), **dict.fromkeys('packages bf16 compile'.split(), True))

@pytest.mark.parametrize('cli, options', [(pretrain_cli, PRETRAIN), (language_cli, LANGUAGE)])
def test_each_option_reaches_the_run(monkeypatch, tmp_path, capsys, cli, options):
    module, name = (pretraining, 'Pretraining') if cli is pretrain_cli else (asking, 'ask')
    stopped_before(monkeypatch, module, name)
    assert set(inspect.signature(cli).parameters) - set(options) <= {'plan', 'devices', 'sharded', 'gpu', 'recipe', 'question', 'out'}, 'an option that is not tried here'
    for k, v in options.items():
        base = dict(corpus='code' if k == 'packages' else 'c4', device=None, **(dict(question='persistence', out=str(tmp_path)) if cli is language_cli else {}))
        before, now = settings_of(cli, **base), settings_of(cli, **{**base, k: v})
        told = OWN.get(k, k)
        assert now[told] != before.get(told), k
        assert now[told] == (False if k == 'joined' else ['mlp'] if k == 'parts' else range(7) if k == 'seeds' else (.7, .999) if k == 'beta1' else (.9, .7) if k == 'beta2' else v), k
        assert {n for n in now if now[n] != before.get(n)} <= {told, 'rule', 'tuned', 'data block_size', 'other block_size', 'other tokenizer', 'other max_tokens', 'other shuffle', 'out'}, k

def test_a_second_corpus_has_the_tokens_of_the_first(monkeypatch, tmp_path):
    stopped_before(monkeypatch, asking, 'ask')
    told = settings_of(language_cli, question='persistence', tokenizer='bpe:300', max_tokens=7, shuffle=1, corpus='c4', out=str(tmp_path))
    assert (told['other tokenizer'], told['other max_tokens'], told['other shuffle']) == ('learnt as bpe:300', 7, None) # docstrings have an order of their own

def test_seeds_of_a_question(tmp_path):
    with pytest.raises(ValueError, match='seeds must be a whole number of at least 1'): language_cli('additive', 'maths', seeds=0, out=str(tmp_path))

# ---- rules crossed with domains

CROSSED_SMALL = ['--seeds', '0-1', '--steps', '2', '--eval-every', '1', '--to', '.1', '--most', '40', '--length', '2', '--rules', 'identity', '--controls', '0']

def crossing(out, *more):
    "The command as a process"
    code = "from proc_nb.commands import crossing; import sys; sys.argv[0] = 'proc-nb-crossing'; sys.exit(crossing())"
    script = Path(out).parent/'proc-nb-crossing'
    script.write_text(code, encoding='utf-8')
    command = [sys.executable, str(script), *CROSSED_SMALL, '--out', str(out), *map(str, more)]
    return subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

def runs_in(path): return json.loads(path.read_text(encoding='utf-8'))['runs'] if path.exists() else []

def test_a_crossing_that_is_killed_goes_on(tmp_path):
    path, out = jsonl(tmp_path/'d.jsonl', [prose(i) for i in range(400)]), tmp_path/'out'
    told, _ = crossing(out, '--domains', path, '--plan', '--measured', 1).communicate(timeout=170)
    assert told.startswith('4 of 4 runs are left.\npractice identity: at most 80 steps') and 'hours of a core' in told
    p = crossing(out, '--domains', path)
    until(lambda: len(runs_in(out/'d.jsonl.json')) >= 2, p)
    p.send_signal(signal.SIGKILL)
    p.communicate()
    before, nets = runs_in(out/'d.jsonl.json'), {f: f.stat().st_mtime_ns for f in (out/'practised').iterdir()}
    told, err = crossing(out, '--domains', path).communicate(timeout=170)
    runs = runs_in(out/'d.jsonl.json')
    assert len(runs) == 4 and runs[:len(before)] == before, err # none is made twice
    assert all(f.stat().st_mtime_ns == t for f, t in nets.items())
    assert '| identity |' in told and '| more, for identity |' in told and '- worth: ' in told
    assert (out/'crossing.md').read_text(encoding='utf-8') in told
    assert {(r['label'], r['seed']) for r in load_rows(out/'crossing.json')} == {(l, s) for l in ('no warm-up', 'identity') for s in (0, 1)}

def load_rows(path): return json.loads(path.read_text(encoding='utf-8'))['rows']

def test_a_crossing_practises_once_for_all_domains(data, tmp_path, monkeypatch):
    other = corpus('maths', block_size=32, n=2500, seed=1, progress=False)
    other.about = {**other.about, 'source': 'other'}
    made, how = [], LanguageStudy._keep
    def counted(self, p, rec, key):
        made.append(key)
        return how(self, p, rec, key)
    monkeypatch.setattr(LanguageStudy, '_keep', counted)
    small = dict(rules=['identity'], seeds=1, steps=2, eval_every=1, to=.1, most=40, length=2, eval_rows=4)
    rows = list(design('crossing', tmp_path, domains=[data, other], **small).records())
    assert len(rows) == 8 and len(made) == len(set(made)) == 2 # the rule and its shuffled rows
    for d in 'maths', 'other': # each arm reads the same text from the same fresh embeddings: they differ in what is carried over
        ends = {r['label']: r['curve']['validation'][-1] for r in rows if r['domain'] == d and r['arm']['rule']}
        assert len(set(ends.values())) == 3

def test_a_crossing_in_words(tmp_path):
    with pytest.raises(ValueError, match='must be a multiple of 100'): design('crossing', tmp_path, domains=['maths'], steps=150)
    with pytest.raises(KeyError, match="Did you mean 'sort'"): design('crossing', tmp_path, rules=['sorte'], domains=['maths'])
    with pytest.raises(ValueError, match='to must lie'): design('crossing', tmp_path, domains=['maths'], to=1.5)

def test_the_stored_crossing_is_gone_on_with(tmp_path):
    "What is stored is not run again, without any practised network"
    kept, planned = stored_crossing()
    mine = [r for r in kept if r['domain'] == 'maths']
    study = design('crossing', tmp_path, domains=['maths'], start='language_crossing')
    assert mine[0]['sha256'] == study.texts['maths'].data.sha256
    assert len(study) - study.left().runs == len({(r['seed'], r['label']) for r in mine}) and not (tmp_path/'practised').exists()
    assert len(kept) <= planned['runs'] and all({'rule', 'parts'} <= set(r['arm']) and r['read'] and r['passes'] for r in kept)
    first = next(study.records())
    assert (first['curve']['validation'], first['label']) == (mine[0]['curve']['validation'], 'no warm-up')
    told = crossing_answer(kept, **planned)
    if len(kept) < planned['runs']: assert told.startswith('Unfinished: ') and 'cannot tell yet' in told

# ---- stored results

def test_stored_runs_say_where_they_come_from():
    kept = stored('language')
    assert {'commands', 'seeds', 'hardware', 'torch', 'python'} <= set(kept['about'])
    for r in kept['rows']:
        assert len(r['sha256']) == 64 and r['python'].startswith('3.') and r['seed'] in kept['about']['seeds']
        assert all(len(v) == len(r['curve']['tokens']) for v in r['curve'].values())
        assert r['curve']['tokens'][-1] >= r.get('tuned', r['steps']) * r['per_step']

@pytest.mark.parametrize('domain', RULES)
@pytest.mark.parametrize('question, size', [('additive', 'tiny'), ('substitutive', 'tiny'), ('parts', 'tiny'), ('amount', 'tiny'), ('additive', 'laptop'), ('substitutive', 'laptop')])
def test_three_seeds_of_every_arm(domain, question, size):
    rows = stored_language(domain, question, size)
    assert {(r['label'], r['seed']) for r in rows} == {(l, s) for l in arms(question, RULES[domain], dict(tiny=500, laptop=250)[size]) for s in range(3)}
    assert ('shuffled rows' in {r['label'] for r in rows}) == (question in ('additive', 'substitutive'))
    if question == 'additive': assert {r['label'] for r in additive(rows)} >= {'shuffled rows', 'more of the target'}
