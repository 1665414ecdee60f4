//! Watching files through inotify: one instance per process, shared by all watches.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use smallvec::SmallVec;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::{Stirred, WatchedFile};
use crate::fork::{ForkLocal, InheritedDescriptor};

/// A watch on some files, until it is dropped.
#[derive(Debug)]
pub struct Watch {
    instance: Arc<Instance>,
    bell: Arc<Bell>,
    watched: SmallVec<[i32; 3]>,
}

#[derive(Debug, Default)]
struct Bell {
    notify: Notify,
    closed: AtomicBool,
}

impl Watch {
    /// Watches files, which exist. `None` when the system cannot.
    pub fn on(files: &[WatchedFile]) -> Option<Self> {
        let instance = Instance::current()?;
        let mut watch = Self {
            instance,
            bell: Arc::default(),
            watched: SmallVec::new(),
        };
        for WatchedFile { path, writes } in files {
            let flags = match writes {
                true => WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE,
                false => WatchFlags::CLOSE_WRITE,
            };
            match watch.instance.add(path, flags, &watch.bell) {
                Ok(descriptor) => watch.watched.push(descriptor),
                Err(error) => {
                    tracing::debug!(path = %path.display(), %error, "polling: no watch");
                    return None;
                }
            }
        }
        Some(watch)
    }

    /// Waits until something happens to the files; at once if something has since the last call.
    ///
    /// # Cancel safety
    /// What happens meanwhile is reported by the next call.
    pub async fn stirred(&self) -> Stirred {
        self.bell.notify.notified().await;
        if self.bell.closed.swap(false, Ordering::AcqRel) {
            Stirred::Closed
        } else {
            Stirred::Woken
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.instance.remove(&self.watched, &self.bell);
    }
}

/// The inotify instance of this process. A user has few of them, so all backends share it.
#[derive(Debug)]
struct Instance {
    _in_child: InheritedDescriptor,
    descriptor: Arc<OwnedFd>,
    bells: Mutex<HashMap<i32, SmallVec<[Arc<Bell>; 1]>>>,
}

impl Instance {
    /// The instance, started on first use. `None` when the system gives none; asked again later.
    fn current() -> Option<Arc<Self>> {
        static CURRENT: ForkLocal<Mutex<Option<Arc<Instance>>>> = ForkLocal::new();
        let mut current = CURRENT
            .get_or_init(Mutex::default)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if current.is_none() {
            match Self::start() {
                Ok(instance) => *current = Some(instance),
                Err(error) => tracing::warn!(
                    %error,
                    "no inotify instance, waiters poll; raise fs.inotify.max_user_instances"
                ),
            }
        }
        current.clone()
    }

    fn start() -> Result<Arc<Self>, Errno> {
        let descriptor = Arc::new(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?);
        let instance = Arc::new(Self {
            _in_child: InheritedDescriptor::close_in_child(descriptor.as_fd()),
            descriptor,
            bells: Mutex::default(),
        });
        crate::runtime::handle().spawn(read_events(Arc::clone(&instance)));
        Ok(instance)
    }

    fn add(&self, path: &Path, flags: WatchFlags, bell: &Arc<Bell>) -> Result<i32, Errno> {
        let mut bells = self.bells();
        // Another backend of this process may watch the same file for other events.
        let flags = flags | WatchFlags::MASK_ADD | WatchFlags::DONT_FOLLOW;
        let descriptor = inotify::add_watch(&*self.descriptor, path, flags)?;
        bells.entry(descriptor).or_default().push(Arc::clone(bell));
        Ok(descriptor)
    }

    fn remove(&self, watched: &[i32], bell: &Arc<Bell>) {
        let mut bells = self.bells();
        for descriptor in watched {
            let Some(here) = bells.get_mut(descriptor) else {
                continue;
            };
            here.retain(|other| !Arc::ptr_eq(other, bell));
            if here.is_empty() {
                bells.remove(descriptor);
                // It may be gone already, together with its file.
                let _ = inotify::remove_watch(&*self.descriptor, *descriptor);
            }
        }
    }

    fn ring(&self, descriptor: i32, events: ReadFlags) {
        let mut bells = self.bells();
        let rung = if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            bells.values().flatten().cloned().collect()
        } else if events.contains(ReadFlags::IGNORED) {
            // The file is gone, and its watch with it.
            bells.remove(&descriptor).unwrap_or_default()
        } else {
            bells.get(&descriptor).cloned().unwrap_or_default()
        };
        drop(bells);
        for bell in rung {
            if !events.contains(ReadFlags::MODIFY) {
                bell.closed.store(true, Ordering::Release);
            }
            bell.notify.notify_one();
        }
    }

    fn bells(&self) -> MutexGuard<'_, HashMap<i32, SmallVec<[Arc<Bell>; 1]>>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read_events(instance: Arc<Instance>) {
    #[expect(
        unsafe_code,
        reason = "tokio offers no safe way to wait for a descriptor of one's own"
    )]
    // SAFETY: the descriptor is open, and stays so and the same as long as the `Arc` that is
    // registered here.
    let registered = unsafe { AsyncFd::register(Arc::clone(&instance.descriptor)) };
    let Ok(readable) = registered else {
        tracing::warn!("inotify cannot be waited for, waiters poll");
        return;
    };
    loop {
        let Ok(mut ready) = readable.readable().await else {
            return;
        };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&*instance.descriptor, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => instance.ring(event.wd(), event.events()),
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        ready.clear_ready();
    }
}
