//! The CSI drivers of the embedded cluster: what they did (the journal), and the faults that a test asks them for.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::skipped;

/// A driver, and the classes that stand for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Driver {
    pub name: &'static str,
    /// Its StorageClass, which binds at once, and its default VolumeSnapshotClass.
    pub class: &'static str,
}

pub const SIM: Driver = Driver { name: "sim.csi.sts-backup.io", class: "csi" };
pub const TWO: Driver = Driver { name: "two.csi.sts-backup.io", class: "two" };

// Whoever sets faults has the driver for himself.
static SIM_USE: RwLock<()> = RwLock::const_new(());
static TWO_USE: RwLock<()> = RwLock::const_new(());

/// What a test wants of a driver.
#[derive(Debug, Clone)]
pub enum With {
    Healthy(Driver),
    /// With this control file, and no other test on it.
    Faulty(Driver, Value),
    /// With this control file, which never changes, and only tests that want the same.
    Alike(Driver, Value),
}

impl With {
    fn driver(&self) -> Driver {
        let (With::Healthy(driver) | With::Faulty(driver, _) | With::Alike(driver, _)) = self;
        *driver
    }
}

/// A driver held for a test; faults end with it.
pub struct Hold {
    pub driver: Driver,
    _shared: Option<RwLockReadGuard<'static, ()>>,
    alone: Option<RwLockWriteGuard<'static, ()>>,
    _alike: Option<Arc<Hold>>,
}

/// What tests that want the same share, while one of them goes on.
type Alike = Mutex<Option<(Value, Weak<Hold>)>>;
static SIM_ALIKE: Alike = Mutex::const_new(None);
static TWO_ALIKE: Alike = Mutex::const_new(None);

/// All of them, or none and a sentence where they are not to be had.
pub async fn hold(with: &[With]) -> Option<Vec<Hold>> {
    if let Some(missing) = with.iter().map(With::driver).find(|driver| folder(*driver).is_none()) {
        skipped(&format!("this cluster has no test driver {} (SSB_CLUSTER_DIR names none)", missing.name));
        return None;
    }
    let mut holds = Vec::new();
    for driver in [SIM, TWO] {
        let Some(want) = with.iter().find(|want| want.driver() == driver) else { continue };
        let (lock, alike) = if driver == SIM { (&SIM_USE, &SIM_ALIKE) } else { (&TWO_USE, &TWO_ALIKE) };
        let none = || Hold { driver, _shared: None, alone: None, _alike: None };
        holds.push(match want {
            With::Healthy(_) => Hold { driver, _shared: Some(lock.read().await), alone: None, _alike: None },
            With::Faulty(_, control) => alone(lock, none(), control).await,
            With::Alike(_, control) => {
                let mut kept = alike.lock().await;
                let same = kept.as_ref().filter(|(theirs, _)| theirs == control).and_then(|(_, hold)| hold.upgrade());
                let shared = match same {
                    Some(shared) => shared,
                    None => Arc::new(alone(lock, none(), control).await),
                };
                *kept = Some((control.clone(), Arc::downgrade(&shared)));
                Hold { driver, _shared: None, alone: None, _alike: Some(shared) }
            }
        });
    }
    Some(holds)
}

async fn alone(lock: &'static RwLock<()>, mut hold: Hold, control: &Value) -> Hold {
    hold.alone = Some(lock.write().await);
    hold.control(control);
    hold
}

fn folder(driver: Driver) -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("SSB_CLUSTER_DIR")?).join("csi").join(driver.name);
    folder.is_dir().then_some(folder)
}

impl Hold {
    /// Sets the control file, whole.
    pub fn control(&self, control: &Value) {
        assert!(self.alone.is_some(), "{} is shared: ask for it as Faulty", self.driver.name);
        write(self.driver, control);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.alone.is_some() {
            write(self.driver, &Value::Object(serde_json::Map::new()));
        }
    }
}

fn write(driver: Driver, control: &Value) {
    let folder = folder(driver).unwrap();
    std::fs::write(folder.join("control.json~"), control.to_string()).unwrap();
    std::fs::rename(folder.join("control.json~"), folder.join("control.json")).unwrap();
}

/// A line of a driver's journal; instants in nanoseconds.
#[derive(Deserialize, Debug, Clone)]
#[serde(default)]
#[derive(Default)]
pub struct Entry {
    pub op: String,
    pub volume: String,
    pub snapshot: String,
    pub begin: i64,
    pub cut: i64,
    pub end: i64,
}

impl Driver {
    pub fn journal(self) -> Vec<Entry> {
        let text = std::fs::read_to_string(folder(self).unwrap().join("journal.jsonl")).unwrap();
        // The last line may be under way.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The cuts of these volumes, in the order of their ends.
    pub fn cuts(self, volumes: &[String]) -> Vec<Entry> {
        let entries = self.journal().into_iter();
        entries.filter(|entry| entry.op == "cut" && volumes.contains(&entry.volume)).collect()
    }

    /// Where the files of a snapshot are, seen from inside the cluster.
    pub fn snapshot(self, handle: &str) -> PathBuf {
        folder(self).unwrap().join("pool/snapshots").join(handle)
    }

    /// The WaitForFirstConsumer class.
    pub fn late(self) -> String {
        format!("{}-wffc", self.class)
    }
}
