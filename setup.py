"Hands the fields that `settings.ini` is the home of to the build."
from configparser import ConfigParser
from setuptools import setup

cfg = ConfigParser(delimiters=['='])
assert cfg.read('settings.ini', encoding='utf-8'), 'settings.ini is missing: it holds the version and the requirements'
defaults, extras = cfg['DEFAULT'], {k: v.split() for k, v in cfg['extras'].items() if k not in cfg.defaults()}
setup(version=defaults['version'], python_requires=f">={defaults['min_python']}",
    install_requires=defaults['requirements'].split(), extras_require=extras)
