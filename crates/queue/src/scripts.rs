//! The queue's keys and the Lua that moves jobs between them. Each script is one atomic step, and bounded.
//!
//! For each queue: `ready` (list of ids that wait), `lease` (ids being worked → when the lease ends, ms),
//! `data` (id → payload), `again` (ids rung while leased), `crashes` (id → leases that ended unanswered).
//!
//! **Invariant:** an id in `data` is in `ready` or in `lease`; else its bell would be deaf.
//!
//! Time is Redis' own, so that clocks of several workers need not agree.

use std::sync::LazyLock;

use deadpool_redis::redis::{Script, ScriptInvocation};

/// The keys of one queue, in the order in which every script takes them.
#[derive(Debug, Clone)]
pub(crate) struct Keys([String; 5]);

impl Keys {
    /// The braces put all keys of an installation into one slot of a Redis cluster.
    pub(crate) fn new(prefix: &str, queue: &str) -> Self {
        Self(
            ["ready", "lease", "data", "again", "crashes"]
                .map(|key| format!("{{{prefix}}}:{queue}:{key}")),
        )
    }

    pub(crate) fn ready(&self) -> &str {
        &self.0[0]
    }

    pub(crate) fn lease(&self) -> &str {
        &self.0[1]
    }

    /// Begins a call of `script` with these keys.
    pub(crate) fn invoke<'a>(&self, script: &'a Script) -> ScriptInvocation<'a> {
        let mut invocation = script.prepare_invoke();
        for key in &self.0 {
            invocation.key(key);
        }
        invocation
    }
}

/// `id payload …` → how many were not waiting already. At most 1,000 pairs a call.
pub(crate) static PUSH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local ready, lease, data, again = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
        local rung = 0
        for i = 1, #ARGV, 2 do
            local id, payload = ARGV[i], ARGV[i + 1]
            if redis.call('HSETNX', data, id, payload) == 1 then
                redis.call('RPUSH', ready, id)
                rung = rung + 1
            elseif redis.call('ZSCORE', lease, id) then
                redis.call('HSET', data, id, payload)
                rung = rung + redis.call('SADD', again, id)
            end
        end
        return rung",
    )
});

/// `lease_ms max_jobs max_crashes` → `{{id, payload, …}, {dropped id, …}}`.
///
/// A lease that has ended means that a worker died with the job: the job goes back to the others, but after
/// `max_crashes` it is dropped, since it may be what kills them; the sweep will ring again, and Postgres
/// counts. Payload and `again` go too, so the next ring of the same id starts afresh.
pub(crate) static FETCH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local ready, lease, data, again, crashes = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
        local lease_ms, max_jobs, max_crashes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
        local time = redis.call('TIME')
        local now = time[1] * 1000 + math.floor(time[2] / 1000)
        local dropped = {}
        for _, id in ipairs(redis.call('ZRANGEBYSCORE', lease, '-inf', now, 'LIMIT', 0, 200)) do
            redis.call('ZREM', lease, id)
            redis.call('SREM', again, id)
            if redis.call('HINCRBY', crashes, id, 1) >= max_crashes then
                redis.call('HDEL', crashes, id)
                redis.call('HDEL', data, id)
                dropped[#dropped + 1] = id
            else
                redis.call('RPUSH', ready, id)
            end
        end
        local jobs = {}
        for _, id in ipairs(redis.call('LPOP', ready, max_jobs) or {}) do
            local payload = redis.call('HGET', data, id)
            if payload then
                redis.call('ZADD', lease, now + lease_ms, id)
                jobs[#jobs + 1] = id
                jobs[#jobs + 1] = payload
            end
        end
        -- Should a key ever be lost alone (eviction, a hand), the invariant heals when the queue is idle.
        if #jobs == 0 and redis.call('EXISTS', ready, lease) == 0 then
            redis.call('UNLINK', data, again, crashes)
        end
        return {jobs, dropped}",
    )
});

/// `'done' | 'back'  id …`: ends leases. A job rung again meanwhile, or given back undone, waits again.
pub(crate) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local ready, lease, data, again, crashes = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
        for i = 2, #ARGV do
            local id = ARGV[i]
            if redis.call('ZREM', lease, id) == 1 then
                local rung = redis.call('SREM', again, id) == 1
                if ARGV[1] == 'done' then redis.call('HDEL', crashes, id) end
                if rung or ARGV[1] == 'back' then
                    redis.call('RPUSH', ready, id)
                else
                    redis.call('HDEL', data, id)
                end
            end
        end
        return 0",
    )
});

/// `lease_ms id …`: lengthens leases that still exist.
pub(crate) static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local until_ms = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[1])
        for i = 2, #ARGV do
            redis.call('ZADD', KEYS[2], 'XX', until_ms, ARGV[i])
        end
        return 0",
    )
});
