//! Spares a provider that does not serve, and those who wait for it: after a failure calls fail at once for a
//! short time, with what it said, instead of each waiting for its own timeout.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use countersign_shared::secret::SecretBytes;
use tokio::time::Instant;

use super::{KekError, KekProvider};

/// For how long after a failure nothing is asked.
const PAUSE: Duration = Duration::from_secs(1);

/// A provider behind a breaker.
#[derive(Debug)]
pub struct Breaker {
    kek: Arc<dyn KekProvider>,
    failed: Mutex<Option<(Instant, String)>>,
}

impl Breaker {
    /// Around this provider.
    pub fn new(kek: Arc<dyn KekProvider>) -> Self {
        Self {
            kek,
            failed: Mutex::default(),
        }
    }

    /// Whether it is asked at `now`.
    fn admit(&self, now: Instant) -> Result<(), KekError> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match failed.as_ref() {
            Some((at, problem)) if now < *at + PAUSE => Err(KekError::Away {
                place: format!("KEK {}", self.kek.id()),
                problem: problem.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Notes, and logs, how it went: at most once in a while, unlike those who ask.
    fn note<T>(&self, result: Result<T, KekError>) -> Result<T, KekError> {
        let failure = match &result {
            Ok(_) => None,
            Err(error) if error.is_outage() => {
                tracing::warn!(%error, "the KEK's provider did not serve");
                Some((Instant::now(), error.to_string()))
            }
            // It did serve.
            Err(_) => None,
        };
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        result
    }
}

#[async_trait]
impl KekProvider for Breaker {
    fn id(&self) -> &str {
        self.kek.id()
    }

    async fn wrap(&self, key: &SecretBytes, context: &str) -> Result<Vec<u8>, KekError> {
        self.admit(Instant::now())?;
        self.note(self.kek.wrap(key, context).await)
    }

    async fn unwrap(&self, wrapped: &[u8], context: &str) -> Result<SecretBytes, KekError> {
        self.admit(Instant::now())?;
        self.note(self.kek.unwrap(wrapped, context).await)
    }

    /// Asks in any case: this is how it is noticed that a provider is back.
    async fn check(&self) -> Result<(), KekError> {
        self.note(self.kek.check().await)
    }

    fn is_of_version(&self, wrapped: &[u8], fresh: &[u8]) -> bool {
        self.kek.is_of_version(wrapped, fresh)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use countersign_shared::seal::SealError;

    use super::*;

    #[derive(Debug, Default)]
    struct Fickle {
        away: AtomicBool,
        asked: AtomicUsize,
    }

    #[async_trait]
    impl KekProvider for Fickle {
        fn id(&self) -> &str {
            "fickle"
        }

        async fn wrap(&self, _: &SecretBytes, _: &str) -> Result<Vec<u8>, KekError> {
            self.check().await.map(|()| vec![])
        }

        async fn unwrap(&self, _: &[u8], _: &str) -> Result<SecretBytes, KekError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            Err(SealError::DoesNotOpen.into())
        }

        async fn check(&self) -> Result<(), KekError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            if self.away.load(Ordering::Relaxed) {
                let (place, problem) = ("there".to_owned(), "no route".to_owned());
                return Err(KekError::Away { place, problem });
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn one_asks_for_all_while_it_is_away() {
        let fickle = Arc::new(Fickle::default());
        let breaker = Breaker::new(Arc::clone(&fickle) as _);
        let key = SecretBytes::from(vec![]);
        let asked = || fickle.asked.swap(0, Ordering::Relaxed);
        breaker.wrap(&key, "").await.unwrap();
        assert_eq!(asked(), 1);
        fickle.away.store(true, Ordering::Relaxed);
        for _ in 0..100 {
            let refused = breaker.wrap(&key, "").await.unwrap_err();
            assert!(refused.to_string().contains("no route"), "{refused}");
        }
        assert_eq!(asked(), 1);
        let now = Instant::now();
        breaker.admit(now).unwrap_err();
        breaker.admit(now + PAUSE).unwrap();
        // What does not unwrap says nothing about the provider, and a check asks in any case.
        fickle.away.store(false, Ordering::Relaxed);
        breaker.check().await.unwrap();
        for _ in 0..3 {
            breaker.unwrap(&[], "").await.unwrap_err();
        }
        assert_eq!(asked(), 4);
    }
}
