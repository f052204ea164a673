"With this folder on PYTHONPATH no Python process reaches beyond its own machine: tutorials need no network, and the tests hold them to it."
import ipaddress, socket

WORDS = 'There is no network here: nothing in a tutorial may need one.'

def near(host):
    "Is `host` this machine?"
    if host in (None, '', b'', 'localhost', b'localhost', '0.0.0.0', '::', socket.gethostname()): return True
    try: return ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host).is_loopback
    except ValueError: return False

def only_near(call, at):
    "`call`, refused unless its address, argument number `at`, is near"
    def guarded(self, *args):
        to = args[at]
        if isinstance(to, tuple) and not near(to[0]): raise OSError(f'{WORDS} Refused: {to[0]}')
        return call(self, *args)
    return guarded

def looked_up(host, *args, **kwargs):
    if not near(host): raise socket.gaierror(f'{WORDS} Refused: {host}')
    return getaddrinfo(host, *args, **kwargs)

getaddrinfo = socket.getaddrinfo
socket.getaddrinfo = looked_up
for name, at in dict(connect=0, connect_ex=0, sendto=-1).items(): setattr(socket.socket, name, only_near(getattr(socket.socket, name), at))
