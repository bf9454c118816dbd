//! First differences, named: between tensors, between parameters.

use model_runtime::tensor::TensorMap;
use serde::Serialize;
use serde_json::Value;

/// The first position at which two sets of tensors differ; both must hold the same tensors.
pub fn tensors(expected: &TensorMap, found: &TensorMap) -> Option<String> {
    let missing = || expected.keys().find(|name| !found.contains_key(*name)).map(|name| format!("tensor `{name}` is missing"));
    let surplus = || found.keys().find(|name| !expected.contains_key(*name)).map(|name| format!("tensor `{name}` doesn't belong here"));
    let differs = || {
        expected.iter().find_map(|(name, e)| {
            let f = found.get(name)?;
            if e.dims != f.dims {
                return Some(format!("tensor `{name}` has dimensions {:?}, expected {:?}", f.dims, e.dims));
            }
            let i = e.data.iter().zip(&f.data).position(|(a, b)| a != b)?;
            Some(format!("tensor `{name}` at {:?}: {} instead of {}", position(&e.dims, i), f.data[i], e.data[i]))
        })
    };
    missing().or_else(surplus).or_else(differs)
}

fn position(dims: &[usize], mut index: usize) -> Vec<usize> {
    let mut at = vec![0; dims.len()];
    for (x, &d) in at.iter_mut().zip(dims).rev() {
        (*x, index) = (index % d, index / d);
    }
    at
}

/// The first entry at which two sets of parameters differ, by its path, like `ops.q.shift: 7 instead of 8`.
pub fn parameters<T: Serialize>(expected: &T, found: &T) -> Option<String> {
    let value = |x: &T| serde_json::to_value(x).unwrap_or_default();
    values("", &value(expected), &value(found))
}

fn values(path: &str, expected: &Value, found: &Value) -> Option<String> {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (expected, found) {
        (Value::Object(e), Value::Object(f)) => {
            let keys = e.keys().chain(f.keys().filter(|k| !e.contains_key(*k)));
            keys.into_iter().find_map(|k| values(&below(k), e.get(k).unwrap_or(&Value::Null), f.get(k).unwrap_or(&Value::Null)))
        }
        (Value::Array(e), Value::Array(f)) if e.len() == f.len() => {
            e.iter().zip(f).enumerate().find_map(|(i, (e, f))| values(&below(&i.to_string()), e, f))
        }
        _ => (expected != found).then(|| format!("{path}: {found} instead of {expected}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model_runtime::tensor::Tensor;
    use serde_json::json;

    #[test]
    fn tensors_are_named_with_the_position() {
        let tensor = |data: [i32; 6]| TensorMap::from([("h".to_owned(), Tensor { dims: vec![2, 3], data: data.to_vec() })]);
        let (a, b) = (tensor([0, 1, 2, 3, 4, 5]), tensor([0, 1, 2, 3, 9, 5]));
        assert_eq!(tensors(&a, &a), None);
        assert_eq!(tensors(&a, &b).as_deref(), Some("tensor `h` at [1, 1]: 9 instead of 4"));
        assert!(tensors(&a, &TensorMap::new()).is_some() && tensors(&TensorMap::new(), &a).is_some());
    }

    #[test]
    fn parameters_are_named_with_the_path() {
        let a = json!({ "ops": { "q": { "shift": 8, "coefs": [1, 2] } }, "lora": null });
        assert_eq!(parameters(&a, &a), None);
        let mut b = a.clone();
        b["ops"]["q"]["coefs"][1] = json!(3);
        assert_eq!(parameters(&a, &b).as_deref(), Some("ops.q.coefs.1: 3 instead of 2"));
        b["ops"]["k"] = json!(1);
        assert!(parameters(&b, &a).is_some() && parameters(&a, &b).is_some());
    }
}
