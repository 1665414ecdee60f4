//! The scripts, and commands that run them.

use redis::{Cmd, Pipeline};

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
        "Acquires a key nobody uses, which may be new.",
        "lua/acquire_free.lua"
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
}

/// A script or a command with its keys and arguments, to be sent and, if need be, sent again.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    what: What,
    keys: Vec<String>,
    arguments: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Script(&'static Script),
    /// See [`Call::enter`].
    Enter,
    /// See [`Call::leave_brief`].
    Leave,
}

impl Call {
    pub(crate) fn new(script: &'static Script, keys: Vec<String>) -> Self {
        Self {
            what: What::Script(script),
            keys,
            arguments: Vec::new(),
        }
    }

    /// On all keys of one lock.
    pub(crate) fn on(script: &'static Script, names: &Names) -> Self {
        Self::new(script, names.all())
    }

    /// Makes a party a brief holder, if nobody else is there. Answered with its entry in the stream,
    /// how many entries there are, and how long the key lives.
    ///
    /// As plain commands, which cost the server a third of what the same script does. None of them
    /// makes a key, and so none is left without an end.
    pub(crate) fn enter(names: &Names, party: &str) -> Self {
        Self {
            what: What::Enter,
            keys: vec![names.base.clone()],
            arguments: ["NOMKSTREAM", "*", "p", party].map(str::to_owned).into(),
        }
    }

    /// Ends a brief holder. Answered with 0, or that the key is no stream, if it is none any more.
    pub(crate) fn leave_brief(names: &Names, entry: String) -> Self {
        Self {
            what: What::Leave,
            keys: vec![names.base.clone()],
            arguments: vec![entry],
        }
    }

    pub(crate) fn is_transaction(&self) -> bool {
        matches!(self.what, What::Enter)
    }

    /// Whether it is refused where the key is a hash.
    pub(crate) fn needs_stream(&self) -> bool {
        matches!(self.what, What::Leave)
    }

    pub(crate) fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// What goes with the command of [`Call::enter`], in one step.
    pub(crate) fn transaction(&self, command: Cmd) -> Result<Pipeline, Cmd> {
        let (What::Enter, [key]) = (self.what, &self.keys[..]) else {
            return Err(command);
        };
        let mut all = Pipeline::with_capacity(3);
        all.atomic().add_command(command);
        all.cmd("XLEN").arg(key).cmd("PTTL").arg(key);
        Ok(all)
    }

    /// A script goes by its digest, or in full to a server that does not know it.
    pub(crate) fn command(&self, by_digest: bool) -> Cmd {
        let words = self.keys.iter().chain(&self.arguments);
        let mut command = Cmd::with_capacity(words.clone().count() + 3, LENGTH);
        match self.what {
            What::Script(script) if by_digest => command.arg("EVALSHA").arg(&script.digest),
            What::Script(script) => command.arg("EVAL").arg(script.source),
            What::Enter => command.arg("XADD"),
            What::Leave => command.arg("XDEL"),
        };
        if let What::Script(_) = self.what {
            command.arg(self.keys.len());
        }
        for word in words {
            command.arg(word);
        }
        command
    }
}

/// Bytes that most commands fit in.
const LENGTH: usize = 512;
