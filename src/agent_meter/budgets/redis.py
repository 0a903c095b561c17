"""Counters and holds in Redis: for many hosts. Two scripts; each is one round trip, and nothing happens between.

A number in Lua is a double, exact up to 9,007 dollars in pico-dollars. So amounts stay strings: they are added by
HINCRBY, which is exact, and compared as two halves of nine digits and the rest.

Redis loses what it has not saved when it fails. Keep the ledger as the truth, and let Redis write its log
(`appendonly yes`) where a lost counter would matter.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ..errors import StoreError
from .engine import Change, Count, Entry, Refusal, tightest
from .windows import FOR_EVER, SteadyClock

try:
    import redis
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise StoreError("budgets in Redis need its client: pip install 'agent-meter[redis]'") from error

CLOCK_KEPT = 60.0  # seconds that the difference to the server's clock is taken as known
KEPT = 172_800_000  # ms that a counter is kept after it stopped to matter, and a hold after it was charged
TIMEOUT = 5.0

# All keys have one hash tag, so that a cluster keeps them on one node. A counter is a hash of u<slot>, r<slot>,
# h<slot>: used, reserved and the highest sum; a hold is a JSON document; `open` orders the holds by their end.
_LUA = """
local function big(s)
  if not s then return 0, 0 end
  if #s <= 9 then return 0, tonumber(s) end
  return tonumber(string.sub(s, 1, -10)), tonumber(string.sub(s, -9))
end
local function plus(h, l, s)
  local a, b = big(s)
  h, l = h + a, l + b
  if l >= 1000000000 then h, l = h + 1, l - 1000000000 end
  return h, l
end
local function text(h, l)
  if h == 0 then return string.format('%.0f', l) end
  return string.format('%.0f', h) .. string.format('%09.0f', l)
end
local function above(h, l, s)
  local a, b = big(s)
  return h > a or (h == a and l > b)
end
local function sum(fields, kind, since)
  local h, l, oldest = 0, 0, nil
  for i = 1, #fields, 2 do
    local slot = tonumber(string.sub(fields[i], 2))
    if string.sub(fields[i], 1, 1) == kind and slot >= since then
      h, l = plus(h, l, fields[i + 1])
      if fields[i + 1] ~= '0' and (not oldest or slot < oldest) then oldest = slot end
    end
  end
  return h, l, oldest
end
local function highest(fields, since)
  local best = '0'
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 1) == 'h' and tonumber(string.sub(fields[i], 2)) >= since then
      local h, l = big(fields[i + 1])
      if above(h, l, best) then best = fields[i + 1] end
    end
  end
  return best
end
local function add(key, field, amount)
  if redis.call('HINCRBY', key, field, amount) < 0 then redis.call('HSET', key, field, '0') end
end
local function changed(key, slot, since)
  local fields = redis.call('HGETALL', key)
  local before, h, l = highest(fields, since), sum(fields, 'u', since)
  if above(h, l, redis.call('HGET', key, 'h' .. slot) or '0') then redis.call('HSET', key, 'h' .. slot, text(h, l)) end
  return {before, text(h, l)}
end
local function negative(amount)
  if string.sub(amount, 1, 1) == '-' then return string.sub(amount, 2) end
  if amount == '0' then return amount end
  return '-' .. amount
end
local function lasts(key, until_ms)
  if until_ms == '0' then redis.call('PERSIST', key); return end
  local old = redis.call('PTTL', key)
  local left = tonumber(until_ms)
  if old == -2 or (old >= 0 and old < left) then redis.call('PEXPIRE', key, until_ms) end
end
local function settle(root, id, actual, final)
  local document = redis.call('GET', root .. 'hold:' .. id)
  if not document then return false end
  local hold = cjson.decode(document)
  if hold.charged and not final then return false end
  local changes = {}
  for i, e in ipairs(hold.entries) do
    local key = root .. 'counter:' .. e[1]
    if hold.charged then
      add(key, 'u' .. e[2], actual[i])
      add(key, 'u' .. e[2], negative(hold.charged[i]))
    else
      add(key, 'r' .. e[2], negative(e[4]))
      add(key, 'u' .. e[2], actual[i])
    end
    local change = changed(key, e[2], tonumber(e[3]))
    changes[#changes + 1] = change[1]
    changes[#changes + 1] = change[2]
  end
  redis.call('ZREM', root .. 'open', id)
  if final then
    redis.call('DEL', root .. 'hold:' .. id)
  else
    hold.charged = actual
    redis.call('SET', root .. 'hold:' .. id, cjson.encode(hold), 'PX', KEPT)
  end
  return changes
end
local root = KEYS[1]
"""
# ARGV: id, expires, then for each entry: key, slot, since, ms until it ends (0: never), amount, limit ('': none).
_RESERVE = """
local id, refused = ARGV[1], {}
if redis.call('EXISTS', root .. 'hold:' .. id) == 1 then return {} end
for i = 3, #ARGV, 6 do
  local key, since, amount, limit = root .. 'counter:' .. ARGV[i], tonumber(ARGV[i + 2]), ARGV[i + 4], ARGV[i + 5]
  if limit ~= '' then
    local fields = redis.call('HGETALL', key)
    local uh, ul, u_old = sum(fields, 'u', since)
    local rh, rl, r_old = sum(fields, 'r', since)
    local h, l = plus(uh, ul, text(rh, rl))
    h, l = plus(h, l, amount)
    if limit == '0' or above(h, l, limit) then
      local oldest = u_old
      if r_old and (not oldest or r_old < oldest) then oldest = r_old end
      refused[#refused + 1] = {(i - 3) / 6, text(uh, ul), text(rh, rl), oldest and string.format('%.0f', oldest) or ''}
    end
  end
end
if #refused > 0 then return refused end
local entries = {}
for i = 3, #ARGV, 6 do
  local key = root .. 'counter:' .. ARGV[i]
  redis.call('HINCRBY', key, 'r' .. ARGV[i + 1], ARGV[i + 4])
  lasts(key, ARGV[i + 3])
  entries[#entries + 1] = {ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 4]}
end
redis.call('SET', root .. 'hold:' .. id, cjson.encode({entries = entries}))
redis.call('ZADD', root .. 'open', ARGV[2], id)
return {}
"""
_SETTLE = """
local actual = {}
for i = 3, #ARGV do actual[#actual + 1] = ARGV[i] end
return settle(root, ARGV[1], actual, ARGV[2] == '1')
"""
_ADD = """
local changes = {}
for i = 1, #ARGV, 5 do
  local key = root .. 'counter:' .. ARGV[i]
  add(key, 'u' .. ARGV[i + 1], ARGV[i + 4])
  lasts(key, ARGV[i + 3])
  local change = changed(key, ARGV[i + 1], tonumber(ARGV[i + 2]))
  changes[#changes + 1] = change[1]
  changes[#changes + 1] = change[2]
end
return changes
"""
_EXPIRE = """
local late = redis.call('ZRANGEBYSCORE', root .. 'open', '-inf', ARGV[1])
for _, id in ipairs(late) do
  local document, held = redis.call('GET', root .. 'hold:' .. id), {}
  if document then
    for i, e in ipairs(cjson.decode(document).entries) do held[i] = e[4] end
    settle(root, id, held, false)
  end
  redis.call('ZREM', root .. 'open', id)
end
return late
"""
_READ = """
local fields = redis.call('HGETALL', root .. 'counter:' .. ARGV[1])
local since = tonumber(ARGV[2])
local uh, ul, oldest = sum(fields, 'u', since)
local rh, rl, r_old = sum(fields, 'r', since)
if r_old and (not oldest or r_old < oldest) then oldest = r_old end
return {text(uh, ul), text(rh, rl), oldest and string.format('%.0f', oldest) or ''}
"""
_EXTEND = "for i = 2, #ARGV do redis.call('ZADD', root .. 'open', 'XX', 'GT', ARGV[1], ARGV[i]) end"
_FORGET = """
for _, field in ipairs(redis.call('HKEYS', root .. 'counter:' .. ARGV[1])) do
  if string.sub(field, 1, 1) ~= 'r' then redis.call('HSET', root .. 'counter:' .. ARGV[1], field, '0') end
end
"""
_NAMES = ("reserve", "settle", "add", "expire", "read", "extend", "forget")


class RedisEngine:
    """The engine of one Redis server (5 or later), or of one node of a cluster. `name` keeps several apart."""

    blocking = True

    def __init__(self, url: str, *, name: str = "budgets", now: Callable[[], float] | None = None) -> None:
        self._url = url
        self._root = f"agent_meter:{{{name}}}:"
        self._turn = threading.RLock()
        self._pid = 0
        self._client: Any = None
        self._scripts: dict[str, Any] = {}
        self._ahead, self._known_until = 0.0, 0.0
        self.now = SteadyClock(self._time if now is None else now)
        with self._asking():
            self._connected().ping()

    def _connected(self) -> Any:
        if self._pid != os.getpid():  # redis-py's pool knows about forks; the scripts are bound to the client
            with self._turn:
                client = redis.Redis.from_url(
                    self._url, decode_responses=True, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT
                )
                sources = (_RESERVE, _SETTLE, _ADD, _EXPIRE, _READ, _EXTEND, _FORGET)
                prelude = _LUA.replace("KEPT", str(KEPT))
                self._scripts = {
                    name: client.register_script(prelude + source) for name, source in zip(_NAMES, sources, strict=True)
                }
                self._client, self._pid = client, os.getpid()
        return self._client

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except (redis.RedisError, OSError) as error:
            raise StoreError(f"Redis: {error}") from error

    def _run(self, name: str, *args: object) -> Any:
        with self._asking():
            self._connected()
            return self._scripts[name](keys=[self._root], args=args)

    def _time(self) -> float:
        """The server's clock, by ours and what is between them."""
        if time.monotonic() > self._known_until:
            with self._asking():
                seconds, micros = self._connected().time()
            self._ahead, self._known_until = seconds + micros / 1e6 - time.time(), time.monotonic() + CLOCK_KEPT
        return time.time() + self._ahead

    def _lasting(self, until: int) -> int:
        return 0 if until >= FOR_EVER else max(1, until - self.now()) + KEPT

    def reserve(self, hold: str, entries: Sequence[Entry], expires: int) -> Refusal | None:
        args: list[object] = [hold, expires]
        for key, slot, since, until, amount, limit in entries:
            args += (key, slot, since, self._lasting(until), amount, "" if limit is None else max(0, limit))
        refused = self._run("reserve", *args)
        if not refused:
            return None
        found = [
            (Refusal(int(place), int(used), int(reserved), int(oldest) if oldest else None), entries[int(place)])
            for place, used, reserved, oldest in refused
        ]
        return tightest(found)

    def settle(self, hold: str, amounts: Sequence[int], *, final: bool = True) -> list[Change] | None:
        found = self._run("settle", hold, 1 if final else 0, *amounts)
        return None if found is None else _changes(found)

    def add(self, entries: Sequence[Entry]) -> list[Change]:
        args: list[object] = []
        for key, slot, since, until, amount, _ in entries:
            args += (key, slot, since, self._lasting(until), amount)
        return _changes(self._run("add", *args))

    def extend(self, holds: Sequence[str], expires: int) -> None:
        self._run("extend", expires, *holds)

    def expire(self) -> list[str]:
        return list(self._run("expire", self.now()))

    def read(self, key: str, since: int) -> Count:
        used, reserved, oldest = self._run("read", key, since)
        return Count(int(used), int(reserved), int(oldest) if oldest else None)

    def keys(self, prefix: str) -> list[str]:
        start = f"{self._root}counter:"
        with self._asking():
            found = self._connected().scan_iter(match=_literally(start + prefix) + "*", count=1000)
            return sorted(key[len(start) :] for key in found)

    def forget(self, key: str) -> None:
        self._run("forget", key)

    def drop(self, keys: Iterable[str]) -> None:
        """They are cleared when their time is up."""

    def kept(self, source: str) -> dict[str, str]:
        with self._asking():
            return dict(sorted(self._connected().hgetall(f"{self._root}{source}").items()))

    def keep(self, name: str, source: str, document: str | None) -> None:
        with self._asking():
            if document is None:
                self._connected().hdel(f"{self._root}{source}", name)
            else:
                self._connected().hset(f"{self._root}{source}", name, document)

    def clear(self) -> None:
        """Forget everything: counters, holds and kept budgets of this `name`."""
        with self._asking():
            for key in self._connected().scan_iter(match=_literally(self._root) + "*", count=1000):
                self._connected().delete(key)

    def close(self) -> None:
        if self._client is not None and self._pid == os.getpid():
            with contextlib.suppress(redis.RedisError, OSError):
                self._client.close()


def _changes(found: Sequence[str]) -> list[Change]:
    numbers = iter(map(int, found))
    return [Change(before, after) for before, after in zip(numbers, numbers, strict=True)]


def _literally(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in text)
