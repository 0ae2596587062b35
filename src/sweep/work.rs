//! Training the runs of a sweep: so many processes at a time, float starts before what needs them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::child::{Child, End};
use super::folder::{Claim, Record};
use super::show::Show;
use super::{Folder, Run, State, Sweep, results};
use crate::error::{Error, ErrorKind, Result};
use crate::interrupt;
use crate::run::RunFolder;

/// Time between two looks at the processes.
const TICK: Duration = Duration::from_millis(50);
/// Time between two looks at what other processes do, and at metrics.
const LOOK: Duration = Duration::from_secs(1);

/// What is to be trained, and how.
#[derive(Debug)]
pub struct Job<'a> {
    /// The sweep.
    pub sweep: &'a Sweep,
    /// Its folder, prepared.
    pub folder: &'a Folder,
    /// The runs to train; the float starts that they need are trained with them.
    pub runs: Vec<&'a Run>,
    /// Processes at a time, one at least.
    pub jobs: usize,
    /// What `--device` says to each place in turn; one at least. `None`: nothing.
    pub devices: Vec<Option<String>>,
    /// What `--data` says to each.
    pub data: Option<PathBuf>,
    /// Whether runs that failed before are trained again.
    pub retry: bool,
    /// Whether nothing is shown.
    pub quiet: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Status {
    /// To be started once its start is there and a place is free.
    Waiting,
    Running,
    Finished,
    /// With this error; or that of its float start.
    Failed(String),
    /// It saved, and goes on with the next sweep.
    Stopped,
}

struct Task<'a> {
    run: &'a Run,
    status: Status,
    /// Whether a failure before is forgotten.
    retry: bool,
    /// When to look again whether another process is done with it.
    not_before: Instant,
}

/// A process and what it holds.
struct Running {
    task: usize,
    place: usize,
    child: Child,
    _claim: Claim,
}

/// Trains the runs of `job`, waits for those that other processes train, and keeps results.csv up to date.
///
/// # Errors
/// Runs that failed, of this sweep or one before; an interruption, after which the same sweep goes on; a folder that cannot be
/// written.
pub fn work(job: &Job) -> Result<()> {
    let tasks = tasks(job);
    let show = Show::new(tasks.len(), job.quiet);
    let mut work = Work { job, tasks, running: Vec::new(), show, is_table_stale: false };
    results::write(job.sweep, job.folder)?;
    let mut told = false;
    let mut last_look = Instant::now();
    loop {
        work.collect()?;
        if interrupt::requested() {
            if !told {
                work.interrupt();
                told = true;
            }
            if work.running.is_empty() {
                break;
            }
        } else {
            work.start_what_can()?;
            if work.running.is_empty() && !work.tasks.iter().any(|t| t.status == Status::Waiting) {
                break;
            }
        }
        if last_look.elapsed() >= LOOK {
            last_look = Instant::now();
            work.show.look(job.folder);
            if work.is_table_stale {
                work.write_table();
            }
        }
        std::thread::sleep(TICK);
    }
    results::write(job.sweep, job.folder)?;
    work.show.end();
    work.outcome(told)
}

/// The runs, each behind the start that it still needs.
fn tasks<'a>(job: &Job<'a>) -> Vec<Task<'a>> {
    let mut tasks: Vec<Task> = Vec::new();
    let mut add = |run: &'a Run| {
        if !tasks.iter().any(|t| t.run.name == run.name) {
            tasks.push(Task { run, status: Status::Waiting, retry: job.retry, not_before: Instant::now() });
        }
    };
    for run in &job.runs {
        let is_done = match job.folder.state(&run.name) {
            State::Finished => true,
            State::Failed(_) => !job.retry,
            _ => false,
        };
        if let Some(start) = run.start.as_ref().and_then(|name| job.sweep.run(name)).filter(|_| !is_done) {
            add(start);
        }
        add(run);
    }
    tasks
}

struct Work<'a> {
    job: &'a Job<'a>,
    tasks: Vec<Task<'a>>,
    running: Vec<Running>,
    show: Show,
    /// Whether a run has ended that results.csv does not know of.
    is_table_stale: bool,
}

impl Drop for Work<'_> {
    /// Where an error ends the sweep its runs save first. Each is waited for as it is dropped, and that only once all are asked.
    fn drop(&mut self) {
        self.interrupt();
    }
}

impl Work<'_> {
    /// Asks the runs to save and stop.
    fn interrupt(&mut self) {
        self.running.iter_mut().for_each(|r| r.child.interrupt());
    }

    /// Writes results.csv; where that fails it is tried again, and the runs go on.
    fn write_table(&mut self) {
        let done = results::write(self.job.sweep, self.job.folder);
        if let (Err(e), false) = (&done, self.is_table_stale) {
            log::warn!("{e}; it is tried again");
        }
        self.is_table_stale = done.is_err();
    }

    /// Takes in the processes that have ended.
    fn collect(&mut self) -> Result<()> {
        let mut i = 0;
        while i < self.running.len() {
            let Some(end) = self.running[i].child.try_wait()? else {
                i += 1;
                continue;
            };
            let ended = self.running.swap_remove(i);
            let (task, name) = (ended.task, &self.tasks[ended.task].run.name);
            let status = match end {
                End::Finished => {
                    self.job.folder.keep_record(name, &Record::now(None, None))?;
                    Status::Finished
                }
                End::Interrupted => Status::Stopped,
                End::Failed { error, hint } => {
                    self.job.folder.keep_record(name, &Record::now(Some(error.clone()), hint))?;
                    Status::Failed(error)
                }
            };
            drop(ended); // others may see how it ended
            self.write_table();
            self.settle(task, status);
        }
        Ok(())
    }

    /// A run has come to rest; so have those that cannot start without it.
    fn settle(&mut self, task: usize, status: Status) {
        let name = self.tasks[task].run.name.clone();
        let was_running = self.tasks[task].status == Status::Running;
        match &status {
            Status::Finished if was_running => self.show.ended(self.job.folder, &name, "finished"),
            Status::Stopped if was_running => self.show.ended(self.job.folder, &name, "stopped"),
            Status::Failed(error) => self.show.failed(&name, error),
            Status::Finished => self.show.passed(&name),
            _ => {} // it waited, and is not done
        }
        self.tasks[task].status = status.clone();
        let status = match status {
            Status::Failed(error) => Status::Failed(blocked(&name, &error)),
            Status::Stopped => Status::Stopped,
            _ => return,
        };
        for i in 0..self.tasks.len() {
            let t = &self.tasks[i];
            if t.status == Status::Waiting && t.run.start.as_ref() == Some(&name) {
                self.settle(i, status.clone());
            }
        }
    }

    /// Starts runs while places are free.
    fn start_what_can(&mut self) -> Result<()> {
        for task in 0..self.tasks.len() {
            if self.running.len() == self.job.jobs {
                break;
            }
            let t = &self.tasks[task];
            if t.status != Status::Waiting || t.not_before > Instant::now() || !self.has_start(task) {
                continue;
            }
            let run = t.run;
            let claim = self.job.folder.claim(&run.name)?;
            let claim = claim.filter(|_| !RunFolder::is_being_trained(&self.job.folder.run(&run.name)));
            let Some(claim) = claim else {
                self.tasks[task].not_before = Instant::now() + LOOK;
                self.show.elsewhere(&run.name);
                continue;
            };
            let state = self.job.folder.state_at_rest(&run.name);
            match state {
                State::Finished => self.settle(task, Status::Finished),
                State::Failed(error) if !self.tasks[task].retry => self.settle(task, Status::Failed(error)),
                _ => self.start(task, claim)?,
            }
        }
        Ok(())
    }

    /// Whether the float network that a run starts from is there.
    fn has_start(&self, task: usize) -> bool {
        let Some(start) = &self.tasks[task].run.start else { return true };
        self.tasks.iter().find(|t| t.run.name == *start).is_none_or(|t| t.status == Status::Finished)
    }

    fn start(&mut self, task: usize, claim: Claim) -> Result<()> {
        let (job, run) = (self.job, self.tasks[task].run);
        let place = (0..).find(|place| self.running.iter().all(|r| r.place != *place)).unwrap_or(0);
        let folder = job.folder.run(&run.name);
        job.folder.begin(run)?;
        let has_checkpoint = folder.join("last.safetensors").exists();
        let mut arguments: Vec<String> = vec!["train".into()];
        if has_checkpoint {
            arguments.extend(["--resume".into(), text(&folder)?]);
        } else {
            RunFolder::clear_unstarted(&folder)?;
            arguments.extend([text(&job.folder.config(&run.name))?, "--out".into(), text(&folder)?]);
            if let Some(start) = &run.start {
                // As YAML, whatever the path holds.
                let from = serde_json::to_string(&text(&job.folder.run(start))?).unwrap_or_default();
                let sets = [format!("train.init_from={from}"), "train.float_epochs=0".into()];
                arguments.extend(sets.into_iter().flat_map(|set| ["--set".into(), set]));
            }
        }
        arguments.push("--quiet".into());
        if let Some(data) = &job.data {
            arguments.extend(["--data".into(), text(data)?]);
        }
        let device = &job.devices[place % job.devices.len()];
        if let Some(device) = device {
            arguments.extend(["--device".into(), device.clone()]);
        }
        let child = Child::start(&arguments, &job.folder.log(&run.name))?;
        self.show.started(run, has_checkpoint, device.as_deref());
        (self.tasks[task].status, self.tasks[task].retry) = (Status::Running, false);
        self.running.push(Running { task, place, child, _claim: claim });
        Ok(())
    }

    /// What the caller is told.
    fn outcome(&self, interrupted: bool) -> Result<()> {
        let is_asked_for = |task: &&Task| self.job.runs.iter().any(|run| run.name == task.run.name);
        let runs: Vec<&Task> = self.tasks.iter().filter(is_asked_for).collect(); // a start counts by what it starts
        let count = |is: fn(&Status) -> bool| runs.iter().filter(|t| is(&t.status)).count();
        let is_failed = |t: &&&Task| matches!(t.status, Status::Failed(_));
        let failed: Vec<&str> = runs.iter().filter(is_failed).map(|t| t.run.name.as_str()).collect();
        let left = count(|s| !matches!(s, Status::Finished | Status::Failed(_)));
        if interrupted && left > 0 {
            return Err(Error::new(ErrorKind::Interrupted, format!("interrupted; {left} runs are not finished"))
                .hint("start the same sweep again: it goes on where it stopped"));
        }
        if !failed.is_empty() {
            let message = format!("{} of {} runs failed: {}", failed.len(), runs.len(), failed.join(", "));
            return Err(Error::training(message).hint(format!(
                "{} has their errors, NAME.log beside it all that they said; --retry-failed trains them again, from their last checkpoint: where \
                 that is damaged or gone, remove the run folder first",
                self.job.folder.results().display()
            )));
        }
        match count(|s| *s == Status::Stopped) {
            0 => Ok(()),
            n => Err(Error::training(format!("{n} runs were interrupted by somebody else"))
                .hint("start the same sweep again: it goes on where they stopped")),
        }
    }
}

/// Why a run cannot start.
pub(super) fn blocked(start: &str, error: &str) -> String {
    format!("its float start {start} failed: {error}")
}

/// A path as an argument, which is no option whatever it begins with.
fn text(path: &std::path::Path) -> Result<String> {
    let text = path.to_str().ok_or_else(|| {
        Error::config(format!("the path {} is not UTF-8", path.display())).hint("choose another folder with --out")
    })?;
    Ok(if text.starts_with('-') { format!("./{text}") } else { text.to_string() })
}
