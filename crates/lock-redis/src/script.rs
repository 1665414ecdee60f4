//! The scripts, and commands that run them.

use redis::Cmd;

use crate::names::Names;

macro_rules! script {
    ($name:ident, $doc:literal, $($file:literal),+) => {
        #[doc = $doc]
        pub(crate) fn $name() -> &'static Self {
            static SCRIPT: std::sync::LazyLock<Script> =
                std::sync::LazyLock::new(|| Script::new(concat!($(include_str!($file)),+)));
            &SCRIPT
        }
    };
}

/// A script, sent by its digest once the server knows it.
#[derive(Debug)]
pub(crate) struct Script {
    source: &'static str,
    digest: String,
}

impl Script {
    fn new(source: &'static str) -> Self {
        let digest = redis::Script::new(source).get_hash().to_owned();
        Self { source, digest }
    }

    script!(
        acquire_free,
        "Acquires a key nobody uses.",
        "lua/acquire_free.lua"
    );
    script!(
        leave_alone,
        "Releases when nobody waits.",
        "lua/leave_alone.lua"
    );
    script!(
        acquire,
        "Acquires or queues.",
        "lua/library.lua",
        "lua/acquire.lua"
    );
    script!(
        leave,
        "Ends an attempt.",
        "lua/library.lua",
        "lua/leave.lua"
    );
    script!(renew, "Renews leases.", "lua/library.lua", "lua/renew.lua");
    script!(
        alter,
        "Changes a grant.",
        "lua/library.lua",
        "lua/alter.lua"
    );
    script!(
        acquire_many,
        "Acquires several keys.",
        "lua/library.lua",
        "lua/acquire_many.lua"
    );
    script!(
        take_away,
        "Breaks holders.",
        "lua/library.lua",
        "lua/break.lua"
    );
    script!(
        inspect,
        "Reports a key.",
        "lua/library.lua",
        "lua/inspect.lua"
    );

    fn command(&self, by_digest: bool, keys: usize) -> Cmd {
        let mut command = Cmd::new();
        if by_digest {
            command.arg("EVALSHA").arg(&self.digest);
        } else {
            command.arg("EVAL").arg(self.source);
        }
        command.arg(keys);
        command
    }
}

/// A script with its keys and arguments, to be sent and, if need be, sent again.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    script: &'static Script,
    keys: Vec<String>,
    arguments: Vec<String>,
}

impl Call {
    pub(crate) fn new(script: &'static Script, keys: Vec<String>) -> Self {
        Self {
            script,
            keys,
            arguments: Vec::new(),
        }
    }

    /// On all keys of one lock.
    pub(crate) fn on(script: &'static Script, names: &Names) -> Self {
        Self::new(script, names.all())
    }

    pub(crate) fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// By its digest, or in full for a server that does not know it.
    pub(crate) fn command(&self, by_digest: bool) -> Cmd {
        let mut command = self.script.command(by_digest, self.keys.len());
        for key in &self.keys {
            command.arg(key);
        }
        for argument in &self.arguments {
            command.arg(argument);
        }
        command
    }
}
