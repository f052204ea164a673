"""What can be checked of the site without Quarto: staging, listed pages, titles, links and anchors, picture texts, sizes.
`--shots` also draws some staged pages with Chromium, light and dark, narrow and wide, into `_artifacts`."""
import fnmatch, json, re, sys
from docs_stage import ROOT, STAGED, heading_id, html_of, stage

MOST = 1_000_000 # bytes of a page
LINK = re.compile(r'(?<!!)\[[^\]]*\]\(([^)\s]+)\)')
SVG = re.compile(r'(<[^<>]*>)?\s*(<svg\b[^>]*>)') # a picture, and the tag it stands in
IMAGE = re.compile(r'!\[([^\]]*)\]\(([^)\s]+)\)|<img\b[^>]*>')

def pages(): return [p.relative_to(ROOT) for d in ('nbs', 'nbs/explain', 'tutorials', 'tutorials/assignments') for p in sorted((ROOT/d).glob('*.ipynb'))]

def listed():
    "Patterns of pages that _quarto.yml renders or links to"
    text = (ROOT/'_quarto.yml').read_text(encoding='utf-8')
    return re.findall(r'^\s*-? ?(?:href: |contents: )?((?:nbs|tutorials)/\S+)\s*$', text, re.M)

def prose(page): return '\n'.join(''.join(c['source']) for c in json.loads((ROOT/page).read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'markdown')

def title(page): return next((s for c in json.loads((ROOT/page).read_text(encoding='utf-8'))['cells'] if (s := ''.join(c['source'])).startswith('# ')), '')

def headings(page): return {heading_id(h) for h in re.findall(r'^#+ +(.+?)\s*$', prose(page), re.M)}

def dead(page, link):
    "Does this link lead nowhere? Anchors of what nbdev documents are looked for in the staged pages"
    name, _, anchor = link.partition('#')
    there = (ROOT/page).parent/name if name else ROOT/page
    return not there.exists() or bool(anchor) and there.suffix == '.ipynb' and anchor not in headings(there)

def drawn(page):
    "The HTML of all stored outputs"
    outputs = [o.get('data', {}) for c in json.loads((ROOT/page).read_text(encoding='utf-8'))['cells'] for o in c.get('outputs', [])]
    return '\n'.join(''.join(d[k]) for d in outputs for k in ('text/html', 'image/svg+xml', 'text/markdown') if k in d)

def unseen(page):
    "Cells that end in a picture but have no stored output"
    for c in json.loads((ROOT/page).read_text(encoding='utf-8'))['cells']:
        lines = ''.join(c['source']).strip().splitlines()
        if c['cell_type'] == 'code' and lines and lines[-1].startswith('show(') and not c['outputs']: yield lines[-1]

def wrong(page):
    "What is wrong with one page"
    text = prose(page)
    if not re.search(r'^# \S', text, re.M): yield 'has no title'
    if any(l.strip() and not l.startswith('>') for l in title(page).splitlines()[1:]): yield 'its first cell holds more than a title and a summary, and nbdev would drop the rest from the site'
    for link in LINK.findall(text):
        if not re.match(r'[a-z]+:', link) and dead(page, link): yield f'links to {link}, which is not there'
    for line in unseen(page): yield f'shows nothing for {line}'
    if any('alt=' not in i for i in re.findall(r'<img\b[^<>]*>', text + drawn(page))): yield 'has an <img> without a text'
    if any(not re.search('aria-(label="[^"]|hidden)', (a or '') + b) for a, b in SVG.findall(drawn(page))): yield 'shows a drawing without a text'
    for alt, target in (m.groups() for m in IMAGE.finditer(text) if m[2]):
        if not alt: yield f'picture {target} has no text'
        if not re.match(r'https?:', target) and not ((ROOT/page).parent/target).exists(): yield f'picture {target} is not there'

SHOTS = dict(home='nbs/index.ipynb', results='nbs/explain/gallery.ipynb', tutorial='tutorials/01_hello.ipynb', api='nbs/24_models.transfer.ipynb')
THEMES = dict(light=('#373a3c', '#ffffff'), dark=('#ffffff', '#222222')) # text and ground of the site's two themes
def as_page(body, theme):
    "A body of HTML in the site's style sheet and colours"
    ink, ground = THEMES[theme]
    css = (ROOT/'nbs/styles/site.css').read_text(encoding='utf-8')
    plain = f'body{{margin:8px;font:16px/1.5 sans-serif;color:{ink};background:{ground}}} a{{color:inherit}}'
    return f'<meta charset="utf-8"><meta name="color-scheme" content="{theme}"><style>{plain}{css}</style><main style="max-width:820px;margin:0 auto">{body}</main>'

def shots():
    "Pictures of some pages; yields their paths"
    from lab_page import ARTEFACTS, chromium
    from playwright.sync_api import sync_playwright
    if not chromium(): sys.exit('--shots needs Chromium: set CHROMIUM, or install it')
    ARTEFACTS.mkdir(exist_ok=True)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium(), args=['--no-sandbox', '--disable-gpu'])
        for name, theme, width in ((n, t, w) for n in SHOTS for t in THEMES for w in (420, 1400)):
            tab = browser.new_context(offline=True, viewport=dict(width=width, height=900), color_scheme=theme).new_page()
            tab.set_content(as_page(html_of(STAGED/SHOTS[name]), theme))
            tab.screenshot(path=ARTEFACTS/f'page_{name}_{theme}_{width}.png')
            tab.context.close()
            yield ARTEFACTS/f'page_{name}_{theme}_{width}.png'

def main():
    site = stage()
    found = [f'{p}: {w}' for p in pages() for w in wrong(p)]
    found += [f'_quarto.yml: {g} matches no page' for g in listed() if not any(fnmatch.fnmatch(str(p), g) for p in pages())]
    found += [f'_quarto.yml does not list {p}' for p in pages() if not any(fnmatch.fnmatch(str(p), g) for g in listed())]
    for p in site.pages:
        found += [f'{p.name} leads to {l}, which is not there' for l in dict.fromkeys(site.dead(p))]
        if len(html_of(p).encode()) > MOST: found.append(f'{p.name} is larger than {MOST:,} bytes')
    found += [f'{p} was not staged' for p in pages() if not (STAGED/p).exists() and not list((STAGED).rglob(p.name))]
    found += [f'{c} was not staged' for c in re.findall(r'^ *css: (\S+)', (ROOT/'_quarto.yml').read_text(encoding='utf-8'), re.M) if not (STAGED/c).exists()]
    print('\n'.join(found) or f'{len(pages())} pages staged; listing, titles, links, anchors, pictures and sizes are in order')
    if '--shots' in sys.argv: print(*shots(), sep='\n')
    return bool(found)

if __name__ == '__main__': sys.exit(main())
