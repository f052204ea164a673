"""The pages of the site as nbdev stages them in `_proc`, set right where it errs: `python tests/docs_stage.py`.

A signature is headed by the name that the page documents, without `__main__`; a link that nbdev made of a name leads to an
anchor that is there, to its class, or is no link. Here is also what a page shows, as HTML, for those who have no Quarto."""
import json, os, re, subprocess, sys
from collections import Counter
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
STAGED = ROOT/'_proc'
SITE = 'https://proc-nb.github.io/proc-nb/'
# nbdev stages pages only after it has made sure of Quarto, which it would download and install as root.
STAGE = 'import nbdev.quarto as q; q._ensure_quarto = lambda: None; q.nbdev_proc_nbs()'
AUTO = re.compile(r'\[(`[^`\]]+`)\]\(' + re.escape(SITE) + r'([^)\s#]+)#([^)\s]+)\)') # what nbdev makes of a name in backticks
DOCUMENTED = re.compile(r'^show_doc\((\w[\w.]*)', re.M)

def cells(page): return json.loads(page.read_text(encoding='utf-8'))['cells']
def source(cell): return ''.join(cell['source'])
def hidden(cell): return bool(re.search(r'^#\| *(include: false|hide\b)', source(cell), re.M))
def folded(text): return re.sub(r'^ {0,3}(`{3,}|~{3,}).*?^ {0,3}\1', '', text, flags=re.DOTALL | re.M) # without blocks of code

def shown(cell):
    "What a reader sees of a cell besides its code: ('md' or 'html', text)"
    if cell['cell_type'] == 'markdown': yield 'md', source(cell)
    if cell['cell_type'] != 'code' or hidden(cell): return
    for o in cell.get('outputs', []):
        data = o.get('data', {})
        kind = next((k for k in ('text/html', 'image/svg+xml', 'text/markdown') if k in data), None)
        if kind: yield 'md' if kind == 'text/markdown' else 'html', ''.join(data[kind])

def heading_id(heading):
    "The id that Quarto gives a heading"
    own = re.search(r'\{#([\w.-]+)[^}]*\}\s*$', heading)
    if own: return own[1]
    plain = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', re.sub(r'\{[^}]*\}\s*$', '', heading)).replace('*', '').replace('`', '')
    return re.sub(r'^[^a-z]+', '', '-'.join(re.sub(r'[^\w\s.-]', '', plain.lower()).split())) or 'section'

def address(page):
    "Where a staged page lies on the site"
    name = next((m[1] for c in cells(page) if c['cell_type'] == 'raw' and (m := re.search(r'^output-file: (\S+)', source(c), re.M))), page.stem + '.html')
    return (page.relative_to(STAGED).parent/name).as_posix()

def anchors(page):
    "All ids of a page"
    found, times = set(), Counter()
    for kind, text in (s for c in cells(page) for s in shown(c)):
        found |= set(re.findall(r'\bid="([^"]+)"', text))
        for h in re.findall(r'^#{1,6} +(.+?)\s*$', folded(text), re.M) if kind == 'md' else ():
            name = heading_id(h)
            found.add(name if not times[name] else f'{name}-{times[name]}')
            times[name] += 1
    return found

def links(page):
    "All targets of links of a page"
    for kind, text in (s for c in cells(page) for s in shown(c)):
        yield from re.findall(r'\bhref="([^"]+)"', text)
        if kind == 'md': yield from re.findall(r'\]\(([^)\s]+)\)', folded(text))

class Site:
    "The staged pages, their addresses and ids"
    def __init__(self):
        self.pages = sorted(p for p in STAGED.rglob('*.ipynb') if '_docs' not in p.parts)
        self.at = {address(p): p for p in self.pages}
        self.books = {p.relative_to(STAGED).as_posix(): a for a, p in self.at.items()}
        self.anchors = cache(lambda at: anchors(self.at[at]))
    def holds(self, at, anchor): return at in self.at and anchor in self.anchors(at)
    def dead(self, page):
        "Links of a page to pages or ids of the site that are not there"
        here = address(page)
        for link in links(page):
            if not link.startswith(SITE) and re.match(r'[a-z]+:', link): continue
            target, _, anchor = link.removeprefix(SITE).partition('#')
            if not link.startswith(SITE) and target: target = os.path.normpath(os.path.join(os.path.dirname(here), target))
            at = self.books.get(target, target) or here
            if at not in self.at:
                if at.endswith(('.html', '.ipynb')): yield link
            elif anchor and not self.holds(at, anchor): yield link

def set_right(cell):
    "A signature under the name that is documented"
    name = DOCUMENTED.search(source(cell)) if cell['cell_type'] == 'code' else None
    if not name: return
    for o in cell.get('outputs', []):
        for kind, text in o.get('data', {}).items():
            text = ''.join(text).replace('__main__.', '')
            given = re.search(r'^### (\S+)$', text, re.M)
            if given and '<locals>' in given[1]: # a function that another one made
                text = text.replace(given[0], f'### {name[1]}').replace(f"def {given[1].split('.')[-1]}(", f'def {name[1]}(')
            o['data'][kind] = text

def link_right(site, text):
    "Links that nbdev made lead to what is there"
    def lead(m):
        said, at, anchor = m.groups()
        if site.holds(at, anchor): return m[0]
        owner = anchor.rpartition('.')[0]
        return f'[{said}]({SITE}{at}#{owner})' if owner and site.holds(at, owner) else said
    return AUTO.sub(lead, text)

def rewrite(page, change):
    "Change the cells of a page in place"
    book = json.loads(page.read_text(encoding='utf-8'))
    before = json.dumps(book)
    for c in book['cells']: change(c)
    if json.dumps(book) != before: page.write_text(json.dumps(book, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')

def stage():
    "Stage all pages and set them right; those that are newer than their notebooks stay as they are"
    subprocess.run([sys.executable, '-W', 'ignore', '-c', STAGE], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    for p in Site().pages: rewrite(p, set_right)
    site = Site()
    def lead(cell):
        if cell['cell_type'] == 'markdown': cell['source'] = link_right(site, source(cell)).splitlines(keepends=True)
    for p in site.pages: rewrite(p, lead)
    return site

def html_of(page):
    "What a staged page shows, nearly as on the site"
    from markdown_it import MarkdownIt
    from html import escape
    to_html = MarkdownIt('commonmark', dict(html=True)).enable('table').render
    def made(cell):
        if cell['cell_type'] == 'raw': return ''.join(f'<h1>{escape(m)}</h1>' for m in re.findall('^title: (.+)', source(cell), re.M))
        code = re.sub(r'^#\|.*\n?', '', source(cell), flags=re.M)
        plain = cell['cell_type'] == 'code' and not hidden(cell) and not re.search(r'^#\| *echo: false', source(cell), re.M)
        texts = [f'<pre><code>{escape(code)}</code></pre>'] if plain and code.strip() else []
        for kind, text in shown(cell): texts.append(to_html(text) if kind == 'md' else f'<div class="cell-output-display">{text}</div>')
        for o in cell.get('outputs', []) if plain else ():
            text = o.get('text') or ('text/html' not in o.get('data', {}) and o.get('data', {}).get('text/plain'))
            if text: texts.append(f'<div class="cell-output-display"><pre>{escape("".join(text))}</pre></div>')
        return '\n'.join(texts)
    return '\n'.join(map(made, cells(page)))

if __name__ == '__main__': print(f'{len(stage().pages)} pages are staged in {STAGED.name}')
