//! The catalogue that is built in: what models cost at their providers, on one day.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::lookup_cache::Remembered;
use super::names::{Letters, fits};
use super::{Price, Rates, Sound};
use crate::llm::provider;

/// Written by `scripts/prices`, which says where from; the format is told in its first lines.
const FILE: &str = include_str!("catalogue.txt");

const NANO_DIGITS: usize = 9;

/// Longer names are no model's. Bounds what a name out of a request can take to look up.
const NAME_MAX: usize = 256;

/// What models cost at their providers.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// Whose facts they are, with its version.
    pub source: &'static str,
    /// The day on which they held, as `2026-11-27`.
    pub day: &'static str,
    sections: Vec<Section>,
    found: Remembered<&'static Listed>,
}

/// The prices of one provider.
#[derive(Debug, Default)]
struct Section {
    provider: &'static str,
    /// Its models are known by name alone, unless anybody may serve them.
    is_maker: bool,
    /// Whose prices are taken for models that it does not list.
    fallbacks: Vec<&'static str>,
    models: Vec<Listed>,
    exact: HashMap<&'static str, usize>,
    /// In the order of the file: the first that fits counts.
    patterns: Vec<Pattern>,
}

/// A pattern of names, and the model that they are of.
#[derive(Debug)]
struct Pattern {
    names: &'static str,
    needed: Letters,
    model: usize,
}

/// A name that is looked up.
#[derive(Clone, Copy)]
struct Name<'a> {
    text: &'a str,
    letters: Letters,
}

/// A model that the catalogue lists.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Listed {
    /// The catalogue's name of the provider.
    pub provider: &'static str,
    pub model: &'static str,
    pub price: Price,
    /// Its weights are open: at whose price it runs is told by the provider alone.
    is_open: bool,
}

/// The catalogue, read when it is first asked for: 2 ms, and 1 MB of memory.
pub fn catalogue() -> &'static Catalogue {
    static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::read(FILE));
    &CATALOGUE
}

impl Catalogue {
    /// Reads the file. Lines that are not as they should be are passed over: a test sees to it that there are none.
    fn read(file: &'static str) -> Self {
        let mut catalogue = Self::default();
        for line in file.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let mut columns = line.split('\t');
            let first = columns.next().unwrap_or_default();
            if let Some(heading) = first.strip_prefix('@').filter(|_| !line.contains('\t')) {
                catalogue.sections.push(Section::read(heading));
            } else if first == "source" {
                catalogue.source = columns.next().unwrap_or_default();
                catalogue.day = columns.next().unwrap_or_default();
            } else if let Some(section) = catalogue.sections.last_mut() {
                section.take(first, columns.next().unwrap_or_default(), columns.next());
            }
        }
        catalogue
    }

    /// What `model` costs at `provider`, by the names that telemetry has for them. Where no provider is known, the name of a
    /// model that one maker alone offers tells him. What was found lately is remembered: a name that is not listed is held against
    /// all patterns.
    pub fn find(&'static self, provider: Option<&str>, model: &str) -> Option<&'static Listed> {
        if model.is_empty() || model.len() > NAME_MAX {
            return None;
        }
        self.found.get(provider, model, || self.look_up(provider, model))
    }

    fn look_up(&self, provider: Option<&str>, model: &str) -> Option<&Listed> {
        let model = model.to_ascii_lowercase();
        match provider {
            Some(provider) => self.find_at(provider::in_catalogue(provider)?, &model),
            None => self.find_by_maker(&model),
        }
    }

    /// Every model, by provider.
    pub fn models(&self) -> impl Iterator<Item = &Listed> {
        self.sections.iter().flat_map(|section| &section.models)
    }

    /// What the catalogue calls a provider, by the name that telemetry has for him; `None` where it lists none of his prices.
    pub fn section_of(&self, provider: &str) -> Option<&'static str> {
        Some(self.section(provider::in_catalogue(provider)?)?.provider)
    }

    /// Whether prices of `provider` are listed, by the name that telemetry has for him.
    pub fn lists_models_of(&self, provider: &str) -> bool {
        self.section_of(provider).is_some()
    }

    fn section(&self, provider: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.provider == provider)
    }

    fn find_at(&self, provider: &str, model: &str) -> Option<&Listed> {
        let section = self.section(provider)?;
        let of_any = |model: &str| {
            let name = Name::of(model);
            let fallbacks = section.fallbacks.iter().filter_map(|provider| self.section(provider));
            std::iter::once(section).chain(fallbacks).find_map(|section| section.find(name))
        };
        // Gateways write the provider before the model: `groq/llama-3.3-70b`.
        of_any(model).or_else(|| of_any(model.rsplit_once('/')?.1))
    }

    fn find_by_maker(&self, model: &str) -> Option<&Listed> {
        let (before, name) = model.rsplit_once('/').map_or((None, model), |(before, name)| (Some(before), name));
        let names_another = |section: &Section| {
            before.is_some_and(|before| {
                let first = before.split('/').next().unwrap_or(before);
                self.section(first).is_some_and(|named| !named.is_maker || named.provider != section.provider)
            })
        };
        let makers = self.sections.iter().filter(|section| section.is_maker && !names_another(section));
        let name = Name::of(name);
        makers.filter_map(|section| section.find(name)).find(|listed| !listed.is_open)
    }
}

impl Section {
    fn read(heading: &'static str) -> Self {
        let mut words = heading.split(' ');
        let provider = words.next().unwrap_or_default();
        let is_maker = words.clone().any(|word| word == "maker");
        let fallbacks = words.skip_while(|word| *word != "<").skip(1).collect();
        Self { provider, is_maker, fallbacks, ..Self::default() }
    }

    fn take(&mut self, model: &'static str, prices: &str, names: Option<&'static str>) {
        let Some((price, is_open)) = read_price(prices) else { return };
        let at = self.models.len();
        self.models.push(Listed { provider: self.provider, model, price, is_open });
        for name in names.unwrap_or(model).split(' ') {
            if name.contains(['*', '#', '!']) {
                self.patterns.push(Pattern { names: name, needed: Letters::needed(name), model: at });
            } else {
                self.exact.entry(name).or_insert(at);
            }
        }
    }

    fn find(&self, name: Name<'_>) -> Option<&Listed> {
        let fitting = || self.patterns.iter().find(|pattern| pattern.fits(name)).map(|pattern| &pattern.model);
        self.models.get(*self.exact.get(name.text).or_else(fitting)?)
    }
}

impl Pattern {
    fn fits(&self, name: Name<'_>) -> bool {
        name.letters.have(self.needed) && fits(self.names, name.text)
    }
}

impl<'a> Name<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, letters: Letters::of(text) }
    }
}

/// A price, and whether the weights are open.
fn read_price(text: &str) -> Option<(Price, bool)> {
    let mut words = text.split(' ');
    let base = rates(&mut words)?;
    let mut price = Price { base, ..Price::default() };
    let (mut is_open, mut steps) = (false, price.steps.iter_mut());
    for word in words {
        if word == "open" {
            is_open = true;
        } else if let Some(sound) = word.strip_prefix('~') {
            let (input, output) = sound.split_once('/')?;
            let of = |text, otherwise| if text == "-" { Some(otherwise) } else { nano_dollars(text) };
            price.sound = Some(Sound { input: of(input, base.input)?, output: of(output, base.output)? });
        } else {
            let (beyond, kinds) = word.strip_prefix('>')?.split_once(':')?;
            *steps.next()? = Some((beyond.parse().ok()?, rates(&mut kinds.split('/'))?));
        }
    }
    Some((price, is_open))
}

fn rates<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Rates> {
    let input = nano_dollars(words.next()?)?;
    let mut or_input = || match words.next()? {
        "-" => Some(input),
        text => nano_dollars(text),
    };
    Some(Rates { input, cached_input: or_input()?, cache_write: or_input()?, output: or_input()? })
}

/// Dollars, written out in decimals, as whole nano-dollars; what is finer is cut off.
fn nano_dollars(text: &str) -> Option<u64> {
    let (whole, parts) = text.split_once('.').unwrap_or((text, ""));
    let parts: String = parts.chars().chain(std::iter::repeat('0')).take(NANO_DIGITS).collect();
    whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(parts.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Dollars per million tokens of input and output.
    fn dollars(provider: Option<&str>, model: &str) -> Option<(f64, f64)> {
        let listed = catalogue().find(provider, model)?;
        Some((listed.price.base.input as f64 / 1e9, listed.price.base.output as f64 / 1e9))
    }

    #[test]
    fn every_line_of_the_file_is_read() {
        let lines = FILE.lines().filter(|line| !line.starts_with(['#', '@']) && line.contains('\t')).count();
        // The line that tells the source is no model's, and those whose first letter is a `@` are.
        let at = FILE.lines().filter(|line| line.starts_with('@') && line.contains('\t')).count();
        assert_eq!(catalogue().models().count(), lines + at - 1);
        assert!(catalogue().models().count() > 1_000);
        assert!(catalogue().source.starts_with("genai-prices "), "{}", catalogue().source);
        assert!(fits("####-##-##", catalogue().day), "{}", catalogue().day);
        assert!(FILE.contains("Permission is hereby granted"), "the licence of the facts goes with them");
    }

    #[test]
    fn no_price_is_nothing_or_a_slip_of_the_unit() {
        for listed in catalogue().models() {
            let Rates { input, cached_input, cache_write, output } = listed.price.base;
            assert!(input > 0 && input < 1_000_000_000_000, "{listed:?}");
            // Some sell what a cache has for a little more.
            assert!(cached_input <= 2 * input.max(cache_write) && output < 2_000_000_000_000, "{listed:?}");
        }
    }

    #[test]
    fn names_are_found_as_providers_write_them() {
        for (provider, model, price) in [
            ("openai", "gpt-4o-mini", Some((0.15, 0.6))),
            ("openai", "GPT-4o-mini-2024-07-18", Some((0.15, 0.6))),
            ("azure.ai.openai", "gpt-4o-mini-2024-07-18", Some((0.15, 0.6))),
            ("anthropic", "claude-sonnet-4-5-20250929", Some((3.0, 15.0))),
            ("gcp.gemini", "gemini-2.5-pro", Some((1.25, 10.0))),
            ("gcp.vertex_ai", "claude-sonnet-4-5@20250929", Some((3.0, 15.0))),
            ("groq", "groq/llama-3.3-70b-versatile", Some((0.59, 0.79))),
            ("openrouter", "openai/gpt-4o-mini", Some((0.15, 0.6))),
            ("openai", "llama-3.3-70b-versatile", None),
            ("vllm", "gpt-4o-mini", None),
            ("ibm.watsonx.ai", "gpt-4o-mini", None),
            ("openai", "gpt-4o-mini-of-mine", None),
            ("openai", "", None),
        ] {
            assert_eq!(dollars(Some(provider), model), price, "{model} at {provider}");
        }
    }

    #[test]
    fn without_a_provider_only_a_makers_own_models_are_known() {
        for (model, price) in [
            ("gpt-4o-mini", Some((0.15, 0.6))),
            ("openai/gpt-4o-mini", Some((0.15, 0.6))),
            ("claude-sonnet-4-5", Some((3.0, 15.0))),
            ("models/gemini-2.5-pro", Some((1.25, 10.0))),
            // They cost what who serves them asks for.
            ("gpt-oss-120b", None),
            ("openai/gpt-oss-120b", None),
            ("llama-3.3-70b-versatile", None),
            ("deepseek-chat", None),
            // Another's prices are not the maker's.
            ("openrouter/gpt-4o-mini", None),
            ("groq/gpt-4o-mini", None),
            ("demo", None),
        ] {
            assert_eq!(dollars(None, model), price, "{model}");
        }
    }

    #[test]
    fn a_name_of_ones_own_is_held_against_few_patterns() {
        let patterns = || catalogue().sections.iter().flat_map(|section| &section.patterns);
        let all = patterns().count();
        for name in ["bench", "my-model", "qwen-local", "support-bot-v3", "house-llm"] {
            let tried = patterns().filter(|pattern| Letters::of(name).have(pattern.needed)).count();
            assert!(tried * 10 < all, "{name}: {tried} of {all}");
        }
    }

    #[test]
    fn long_prompts_and_sound_have_their_prices() {
        let price = catalogue().find(Some("gcp.gemini"), "gemini-2.5-pro").unwrap().price;
        let (beyond, rates) = price.steps[0].unwrap();
        assert_eq!((beyond, rates.input, rates.output), (200_000, 2_500_000_000, 15_000_000_000));
        let price = catalogue().find(Some("openai"), "gpt-realtime").unwrap().price;
        assert_eq!(price.sound, Some(Sound { input: 32_000_000_000, output: 64_000_000_000 }));
    }

    #[test]
    fn decimals_are_exact() {
        for (text, nano) in [
            ("2.5", Some(2_500_000_000)),
            ("0.000000001", Some(1)),
            ("30", Some(30_000_000_000)),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nano_dollars(text), nano, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_survived(provider in "[a-z_.]{0,8}", model in "\\PC{0,300}") {
            catalogue().find(Some(&provider), &model);
            catalogue().find(None, &model);
        }
    }
}
