"""Methods that may be called on the class, too: then on an object that is made for that call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Generic, TypeVar, overload

if TYPE_CHECKING:
    import inspect

OnObject = TypeVar("OnObject")
OnClass = TypeVar("OnClass")


class AlsoOnClass(Generic[OnObject, OnClass]):
    """A method of an object, of the type OnObject; called on its class it has the type OnClass.

    There its keywords are those of the class, with `once`, which go before the class's defaults.
    """

    def __init__(self, method: Callable[..., Any], **once: Any) -> None:
        self._method = method
        self._once = once
        self.__doc__ = method.__doc__

    def __set_name__(self, kind: type[Any], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, found: None, kind: type[Any]) -> OnClass: ...

    @overload
    def __get__(self, found: object, kind: type[Any]) -> OnObject: ...

    def __get__(self, found: object, kind: type[Any]) -> Any:
        if found is not None:
            return self._method.__get__(found, kind)
        method, once = self._method, self._once

        def call(*words: Any, **parameters: Any) -> Any:
            return method(kind(**{**once, **parameters}), *words)

        call.__name__, call.__doc__ = self._name, method.__doc__
        call.__qualname__ = f"{kind.__qualname__}.{self._name}"
        call.__signature__ = _signature(method, kind)  # type: ignore[attr-defined]
        return call


def _signature(method: Callable[..., Any], kind: type[Any]) -> inspect.Signature:
    """What `help` and `inspect` show: the words of the method, and the keywords of the class."""
    import inspect  # only here: most programs do without

    own = inspect.signature(method)
    words = list(own.parameters.values())[1:]
    keywords = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(kind).parameters.values()
    ]
    return own.replace(parameters=[*words, *keywords])
