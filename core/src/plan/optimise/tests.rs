use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn column(value: i64, uses: &[(usize, i64)]) -> Column {
    Column { value, uses: uses.iter().map(|(row, amount)| Use { row: *row, amount: *amount }).collect() }
}

fn problem(limits: &[i64], models: Vec<Vec<Column>>) -> Problem {
    Problem { limits: limits.to_vec(), models }
}

fn solved(problem: &Problem) -> Solution {
    solve(problem, Effort::default()).unwrap()
}

/// What of each row the chosen columns leave, where nothing less than nothing is left at the start.
fn left(problem: &Problem, chosen: &[usize]) -> Vec<i64> {
    let mut left: Vec<i64> = problem.limits.iter().map(|limit| (*limit).max(0)).collect();
    for (model, column) in chosen.iter().enumerate() {
        problem.models[model][*column].uses.iter().for_each(|use_| left[use_.row] -= use_.amount);
    }
    left
}

fn value(problem: &Problem, chosen: &[usize]) -> i64 {
    chosen.iter().enumerate().map(|(model, column)| problem.models[model][*column].value).sum()
}

/// The best of all choices.
fn best(problem: &Problem) -> i64 {
    let mut chosen = vec![0; problem.models.len()];
    let mut best = i64::MIN;
    loop {
        if left(problem, &chosen).iter().all(|left| *left >= 0) {
            best = best.max(value(problem, &chosen));
        }
        let Some(model) = (0..chosen.len()).find(|model| chosen[*model] + 1 < problem.models[*model].len()) else {
            return best;
        };
        chosen[model] += 1;
        chosen[..model].fill(0);
    }
}

fn problems() -> impl Strategy<Value = Problem> {
    (1..4_usize).prop_flat_map(|rows| {
        let uses = vec(proptest::option::weighted(0.6, 0..20_i64), rows);
        let taking = (-10..90_i64, uses).prop_map(|(value, uses)| {
            let uses =
                uses.into_iter().enumerate().filter_map(|(row, amount)| amount.map(|amount| Use { row, amount }));
            Column { value, uses: uses.collect() }
        });
        let model = (-10..1_i64, vec(taking, 0..5)).prop_map(|(nothing, mut columns)| {
            columns.push(column(nothing, &[]));
            columns
        });
        (vec(-2..40_i64, rows), vec(model, 1..6)).prop_map(|(limits, models)| Problem { limits, models })
    })
}

proptest! {
    #[test]
    fn what_is_chosen_fits_and_lies_between_the_best_and_the_bound(problem in problems()) {
        let solution = solved(&problem);
        prop_assert!(left(&problem, &solution.chosen).iter().all(|left| *left >= 0));
        prop_assert_eq!(solution.value, float(value(&problem, &solution.chosen)));
        let best = float(best(&problem));
        prop_assert!(solution.value <= best);
        prop_assert!(best <= solution.bound + 1e-9 * solution.bound.abs(), "{} is no bound of {best}", solution.bound);
        prop_assert!(solution.prices.iter().all(|price| *price >= 0.0));
        prop_assert_eq!(&solved(&problem), &solution, "the same problem, the same plan");
    }

    #[test]
    fn more_room_makes_no_less_bound(problem in problems(), more in 0..20_i64) {
        let wider = Problem { limits: problem.limits.iter().map(|limit| limit + more).collect(), ..problem.clone() };
        prop_assert!(float(best(&problem)) <= solved(&wider).bound + 1e-6);
    }
}

#[test]
fn where_everything_fits_everyone_takes_the_best() {
    let models = vec![vec![column(0, &[]), column(5, &[(0, 3)]), column(9, &[(0, 8)])]; 20];
    let solution = solved(&problem(&[1000], models));
    assert_eq!(solution.chosen, [2; 20]);
    assert_eq!((solution.gap(), solution.prices), (0.0, vec![0.0]));
}

#[test]
fn a_row_that_binds_has_the_price_of_what_it_keeps_away() {
    // The first three are worth 10 a unit each, the fourth would be worth 4.
    let model = |value| vec![column(0, &[]), column(value, &[(0, 10)])];
    let solution = solved(&problem(&[30], vec![model(100), model(40), model(100), model(100)]));
    assert_eq!(solution.chosen, [1, 0, 1, 1]);
    assert!((4.0..=10.0).contains(&solution.prices[0]), "{:?}", solution.prices);
    assert!(solution.gap() < 5e-4, "{}", solution.gap());
}

#[test]
fn one_gives_way_where_two_win_more() {
    // Alone each pair of the small ones is worth more than the large one that they have no room beside.
    let small = || vec![column(0, &[]), column(6, &[(0, 5)])];
    let solution = solved(&problem(&[10], vec![vec![column(0, &[]), column(10, &[(0, 6)])], small(), small()]));
    assert_eq!((solution.chosen, solution.value), (vec![0, 1, 1], 12.0));
}

#[test]
fn of_a_row_that_is_overdrawn_nobody_takes() {
    let taking = || vec![column(-3, &[]), column(7, &[(0, 1)]), column(2, &[(1, 1)])];
    let solution = solved(&problem(&[-5, 1], vec![taking(), taking()]));
    assert_eq!(solution.value, -1.0, "one on the second row, nothing for the other");
    assert!(solved(&problem(&[], Vec::new())).chosen.is_empty());
}

#[test]
fn what_is_no_problem_is_named() {
    let error = |problem: &Problem| solve(problem, Effort::default()).unwrap_err().to_string();
    let stuck = problem(&[1], vec![vec![column(0, &[])], vec![column(1, &[(0, 1)])]]);
    assert_eq!(error(&stuck), "model 1 has no column that takes nothing");
    for (row, amount) in [(1, 1), (0, -1)] {
        let bad = problem(&[1], vec![vec![column(0, &[]), column(1, &[(row, amount)])]]);
        assert!(
            error(&bad).starts_with(&format!("column 1 of model 0 takes {amount} of row {row}")),
            "{}",
            error(&bad)
        );
    }
}

#[test]
fn effort_is_limited() {
    let model = |at: i64| vec![column(0, &[]), column(50 + at, &[(0, 7 + at % 3)]), column(30, &[(0, 4)])];
    let problem = problem(&[60], (0..20).map(model).collect());
    let solution = solve(&problem, Effort { rounds: 3, gap: 0.0 }).unwrap();
    assert!(solution.rounds <= 3 && solution.gap() >= 0.0);
    assert!(solved(&problem).gap() <= solution.gap());
}
