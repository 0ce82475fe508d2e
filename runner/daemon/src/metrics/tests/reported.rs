//! What checks report of themselves.
use drill::ledger::Figure;

use super::*;

fn figure(name: &str, labels: &[(&str, &str)], value: f64) -> Figure {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Figure { name: name.to_owned(), labels, value }
}

/// The run of a check that reported these.
fn events(figures: Vec<Figure>) -> Vec<Event> {
    let ended = CheckEnded {
        check: "freshness".to_owned(),
        database: "shop".to_owned(),
        outcome: CheckOutcome::Completed { summary: None },
        usage: CheckUsage::default(),
        figures,
    };
    let concluded = Event::Concluded(sample::summary(Reason::Proven, "fine"));
    vec![Event::CheckEnded(ended), concluded, Event::Ended { leftovers: Leftovers::None }]
}

fn reported(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("muster_check_metric{")).collect()
}

const AGE: &str = "muster_check_metric{drill=\"orders\",check=\"freshness\",database=\"shop\",metric=\"age_seconds\",\
                   table=\"public.\\\"orders\\\"\"}";

#[test]
fn what_a_check_reports_is_a_bounded_number_of_series_of_the_last_run() {
    let (metrics, _) = metrics(vec![known(drill("orders", ""))]);
    let started = sample::started("orders", Path::new("/evidence"));
    let mut figures = vec![
        figure("age_seconds", &[("table", "public.\"orders\"")], 13.5),
        // A ledger that somebody changed: such a series would cost the whole scrape.
        figure("age_seconds", &[("drill", "stock")], 1.0),
    ];
    figures.extend((0..500).map(|n| figure(&format!("m{n}"), &[], 1.0)));
    let mut stamped = sample::stamp(&started, events(figures));
    let end = stamped.pop().unwrap();
    for event in stamped {
        tell(&metrics, &started, event);
    }
    assert_eq!(reported(&metrics.render()), [""; 0], "the last run's figures, and it has not ended");
    tell(&metrics, &started, end);
    let text = metrics.render();
    assert_has(&text, &[(AGE, 13.5)]);
    assert!(!text.contains("drill=\"stock\""), "{text}");
    assert_eq!(reported(&text).len(), 200);
    assert!(!text.contains(started.run.as_str()));
}

#[tokio::test]
async fn what_a_check_reported_is_there_after_a_restart_from_the_first_scrape_on() {
    let (before, _) = metrics(vec![known(drill("orders", ""))]);
    let (store, started) = (MemoryStore::new(), sample::started("orders", Path::new("/evidence")));
    store.claim(&started).await.unwrap();
    let figures = vec![figure("age_seconds", &[("table", "public.\"orders\"")], 13.5), figure("tables", &[], 38.0)];
    let written = events(figures);
    for event in &written {
        store.append(&started.run, event).await.unwrap();
    }
    run(&before, &started, written);

    let (after, _) = metrics(vec![known(drill("orders", ""))]);
    after.remember(&store.reopen()).await.unwrap();
    let (before, after) = (before.render(), after.render());
    assert_eq!(reported(&after), reported(&before));
    assert_has(&after, &[(AGE, 13.5)]);
}
