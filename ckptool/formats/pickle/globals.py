"""Which classes and functions a pickle may name without alarm.

Nothing is run by ckptool whatever the answer. The answer says what would happen elsewhere, in a plain `pickle.load`:
"harmless" names only rebuild data; "dangerous" names run code, import, read or write files or talk to a network, or
hand out whatever could; any other name is "unknown", because nobody can list all code of all packages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ckptool.core.checkpoint import GlobalUse, Risk
from ckptool.core.spec import DTYPES
from ckptool.formats.pickle.objects import Call, Global, Persistent
from ckptool.formats.pickle.tensors import HOOKS, REBUILD

MAX_GLOBALS = 20_000
_NAME_PARTS = 8  # no module that is listed here is deeper
_WORST: list[Risk] = ["harmless", "unknown", "dangerous"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BUILTINS = """
    bool bytearray bytes complex dict float frozenset int list long object range set slice str tuple unicode xrange
    NoneType Ellipsis NotImplemented
"""

# module -> names that only rebuild data
_HARMLESS: dict[str, str] = {
    "builtins": _BUILTINS,
    "__builtin__": _BUILTINS,
    "_codecs": "encode",
    "argparse": "Namespace",
    "collections": "OrderedDict defaultdict Counter deque ChainMap UserDict UserList UserString",
    "copyreg": "_reconstructor __newobj__ __newobj_ex__",
    "copy_reg": "_reconstructor __newobj__ __newobj_ex__",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "_io": "BytesIO StringIO",
    "io": "BytesIO StringIO",
    "pathlib": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    "pathlib._local": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    "types": "SimpleNamespace NoneType EllipsisType",
    "uuid": "UUID SafeUUID",
    # plain dicts with attributes: Lightning's hyper-parameters
    "lightning.fabric.utilities.data": "AttributeDict",
    "lightning.pytorch.utilities.parsing": "AttributeDict",
    "lightning_fabric.utilities.data": "AttributeDict",
    "pytorch_lightning.utilities.parsing": "AttributeDict",
    # numpy: scalars, arrays, random states
    "numpy": """
        dtype ndarray bool bool_ int8 int16 int32 int64 intp uint8 uint16 uint32 uint64 uintp longlong ulonglong float16
        float32 float64 longdouble complex64 complex128 str_ bytes_ datetime64 timedelta64
    """,
    "numpy.core.multiarray": "scalar _reconstruct",
    "numpy._core.multiarray": "scalar _reconstruct",
    "numpy.core.numeric": "_frombuffer",
    "numpy._core.numeric": "_frombuffer",
    "numpy.random._pickle": "__randomstate_ctor __generator_ctor __bit_generator_ctor",
    "numpy.random._mt19937": "MT19937",
    "numpy.random._pcg64": "PCG64 PCG64DXSM",
    "numpy.random._philox": "Philox",
    "numpy.random._sfc64": "SFC64",
    # torch: tensors, storages, plain values
    "torch": """
        Size Tensor device dtype Generator finfo iinfo strided sparse_coo sparse_csr sparse_csc sparse_bsr sparse_bsc
        contiguous_format channels_last channels_last_3d preserve_format per_tensor_affine per_channel_affine
        per_tensor_symmetric per_channel_symmetric per_channel_affine_float_qparams
        half float double cfloat cdouble short int long
    """,
    "torch._C": "Size device dtype Generator layout memory_format",
    "torch._tensor": "_rebuild_from_type_v2 Tensor",
    "torch.jit._pickle": """
        build_boollist build_doublelist build_intlist build_tensor_from_id build_tensorlist restore_type_tag
    """,
    "torch.nn": "Parameter Buffer",
    "torch.nn.parameter": "Parameter Buffer UninitializedParameter UninitializedBuffer",
    "torch.nn.functional": "relu relu6 gelu silu mish elu leaky_relu tanh sigmoid softmax log_softmax hardswish",
    "torch.serialization": "_get_layout",
    "torch.storage": "TypedStorage UntypedStorage _TypedStorage _UntypedStorage",
    "torch._utils": "_element_size",
    "torch.distributed.checkpoint.filesystem": "_StorageInfo _StoragePrefix",
    "torch.distributed.checkpoint.metadata": "_MEM_FORMAT_ENCODING",
    "torch.torch_version": "TorchVersion",
}

# torch's own classes, by name alone: modules, optimizers, schedulers, the headers of distributed checkpoints
_CLASSES_OF = (
    "torch.nn.modules",
    "torch.nn.quantized",
    "torch.nn.utils",
    "torch.utils.hooks",
    "torch.ao.nn",
    "torch.optim",
    "torch.distributed.checkpoint.metadata",
    "torch.distributed.tensor",
    "torch.distributed._tensor",
    "numpy.dtypes",
)
_CLASS_NAME = re.compile(r"_?[A-Z]\w*", re.ASCII)
_TORCH_STORAGE = re.compile(r"torch(?:\.cuda|\.xpu|\.mps)?\.[A-Z]\w*Storage", re.ASCII)
_TORCH_REBUILD = re.compile(r"torch\._utils\._rebuild_\w+", re.ASCII)

# modules and names that run code, or reach what does; each covers what lies inside it
_DANGEROUS = _words(
    """
    aifc _aix_support antigravity _asyncio asyncio asyncore atexit bdb _bootsubprocess bz2 cgi code _codecs.lookup
    codecs.lookup codecs.open _codecs.register codecs.register codeop collections.namedtuple commands.getoutput
    commands.getstatusoutput compileall concurrent contextlib.ExitStack copyreg.add_extension copyreg.constructor
    copyreg.pickle cPickle cProfile _ctypes ctypes curses dataclasses.make_dataclass dbm distutils doctest ensurepip
    faulthandler fileinput _frozen_importlib _frozen_importlib_external ftplib functools.partial
    functools.partialmethod functools.reduce gc gzip http httplib idlelib imaplib _imp imp importlib
    inspect.getattr_static inspect.getmembers inspect.getsource io.FileIO _io.FileIO io.open _io.open io.open_code
    _io.open_code lib2to3 linecache logging.config logging.handlers lzma mailbox mailcap marshal mmap modulefinder
    msvcrt multiprocess multiprocessing netrc nntplib nt ntpath operator.attrgetter _operator.attrgetter
    operator.call operator.itemgetter _operator.itemgetter _operator.methodcaller operator.methodcaller os
    _osx_support pdb pickle _pickle pickletools pip pipes pkg_resources pkgutil platform popen2 poplib posix
    posixfile posixpath _posixshmem _posixsubprocess profile pstats pty py_compile pydoc pyexpat _pyrepl readline
    resource rlcompleter runpy select selectors setuptools shelve shutil signal site sitecustomize smtpd smtplib
    _socket socket socketserver sqlite3 _sqlite3 _ssl ssl string.Formatter subprocess symtable sys sysconfig syslog
    tarfile telnetlib tempfile _thread threading timeit tkinter trace turtle types.BuiltinFunctionType
    types.CodeType types.FunctionType types.LambdaType types.MethodType types.ModuleType types.new_class
    types.resolve_bases typing._eval_type typing.ForwardRef typing.get_type_hints unittest urllib urllib2
    usercustomize uuid._get_command_stdout uuid._popen venv weakref.finalize webbrowser _winapi winreg wsgiref xml
    xmlrpc _xxsubinterpreters zipapp zipfile zipimport

    aiohttp cffi cloudpickle dill httpx joblib jsonpickle numpy._core.memmap numpy.core.memmap numpy.ctypeslib
    numpy.distutils numpy.f2py numpy.fromfile numpy.genfromtxt numpy.lib._npyio_impl numpy.lib.format
    numpy.lib.npyio numpy.load numpy.loadtxt numpy.memmap numpy.save numpy.savetxt numpy.testing pandas.eval
    pandas.io pandas.read_pickle paramiko psutil requests torch._C._jit_load torch._dynamo torch._functorch
    torch._inductor torch._numpy torch.classes torch.distributed.elastic torch.distributed.launch
    torch.distributed.launcher torch.distributed.rpc torch.distributed.run torch.export torch.fx torch.hub torch.jit
    torch.multiprocessing torch.onnx torch.ops torch.package torch.save torch.serialization
    torch.storage._load_from_bytes torch.testing torch.utils._config_module torch.utils.bottleneck
    torch.utils.collect_env torch.utils.cpp_extension torch.utils.data.datapipes torch.utils.model_zoo urllib3
    """
)
# of the builtins these; an exception or a type that is not listed anywhere is unknown
_DANGEROUS_BUILTINS = _words(
    """
    __build_class__ __import__ __loader__ apply breakpoint classmethod coerce compile copyright credits delattr dir
    eval exec execfile exit file filter getattr globals hasattr help input intern license locals map memoryview open
    print property quit raw_input reduce reload setattr staticmethod super type vars
    """
)
_LOADER = re.compile(r"(?:torch|numpy|pandas|joblib|dill|cloudpickle)\b.*[._]load", re.ASCII)
_INSIDE = re.compile(r"__\w+__")
# what re-exports of the worst are called, wherever they hide
_DANGEROUS_NAMES = _words(
    """
    __import__ Popen check_call check_output eval exec execfile fork_exec getoutput getstatusoutput import_module
    load_library popen run_path runcode runsource spawn spawnv system
    """
)

_EXACT = frozenset(f"{module}.{name}" for module, names in _HARMLESS.items() for name in names.split())
_EXACT |= {f"torch.{name}" for name in DTYPES}


def risk_of(module: str, name: str) -> Risk:
    """What naming ``module.name`` would mean in a plain `pickle.load`.

    Example:
        >>> risk_of("torch._utils", "_rebuild_tensor_v2"), risk_of("posix", "system"), risk_of("my.model", "Net")
        ('harmless', 'dangerous', 'unknown')
        >>> risk_of("torch.storage", "_load_from_bytes")  # torch's own, and it unpickles what it is given
        'dangerous'
    """
    full = f"{module}.{name}"
    if full in _EXACT or _TORCH_STORAGE.fullmatch(full) or _TORCH_REBUILD.fullmatch(full):
        return "harmless"
    parts = full.split(".", _NAME_PARTS)[:_NAME_PARTS]
    if any(".".join(parts[:length]) in _DANGEROUS for length in range(1, len(parts) + 1)):
        return "dangerous"
    if parts[0] in ("builtins", "__builtin__"):
        return "dangerous" if parts[1] in _DANGEROUS_BUILTINS or len(parts) > 2 else "unknown"
    if _LOADER.match(full) or _INSIDE.search(name) or name.rpartition(".")[2] in _DANGEROUS_NAMES:
        return "dangerous"
    # protocol 4 walks through attributes, and modules are attributes: ("random", "_os.system")
    if "." in name and any(part.lstrip("_") in _DANGEROUS for part in parts[1:]):
        return "dangerous"
    if _CLASS_NAME.fullmatch(name) and any(module == room or module.startswith(room + ".") for room in _CLASSES_OF):
        return "harmless"
    return "unknown"


class GlobalLog:
    """The globals of one pickle, in order of first appearance."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, str], None] = {}

    def saw(self, module: str, name: str) -> bool:
        """Note one; False if there are more than any checkpoint has."""
        self.seen[module, name] = None
        return len(self.seen) <= MAX_GLOBALS

    def uses(self, calls: Iterable[Call], tensors: int = 0) -> tuple[GlobalUse, ...]:
        """Each global once, with how often `calls`, and plain tensors beside them, would call it."""
        counts: dict[tuple[str, str], list[int]] = {}
        if tensors:
            counts = {REBUILD: [tensors, 6], HOOKS: [tensors, 0]}
        for call in calls:
            fn = _callee(call.fn)
            if type(fn) is Global:
                arguments = len(call.args) if type(call.args) is tuple else 0
                counts.setdefault((fn.module, fn.name), [0, arguments])[0] += 1
        found = (
            GlobalUse(f"{module}.{name}", risk_of(module, name), *counts.get((module, name), (0, 0)))
            for module, name in self.seen
        )
        return merge_globals(found)


def _callee(fn: object) -> object:
    """The class that legacy torch files hide in a persistent id: ``("module", class, source file, source)``."""
    if type(fn) is Persistent and type(fn.pid) is tuple and len(fn.pid) == 4:
        kind, cls, *_ = fn.pid
        return cls if type(kind) is str and kind == "module" else fn
    return fn


def merge_globals(*groups: Iterable[GlobalUse]) -> tuple[GlobalUse, ...]:
    """The globals of several pickles as one list: each name once, calls added up, the worst risk kept.

    Example:
        >>> merge_globals([GlobalUse("a.b", "unknown", 1, 2)], [GlobalUse("a.b", "unknown", 3, 4)])
        (GlobalUse(name='a.b', risk='unknown', calls=4, arguments=2),)
    """
    merged: dict[str, GlobalUse] = {}
    for use in (use for group in groups for use in group):
        before = merged.get(use.name)
        if before is not None:
            risk = max(before.risk, use.risk, key=_WORST.index)
            arguments = before.arguments if before.calls else use.arguments
            use = GlobalUse(use.name, risk, before.calls + use.calls, arguments)
        merged[use.name] = use
    return tuple(merged.values())
