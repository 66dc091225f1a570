//! Looks into an encoded message for the values of one text field, without decoding the rest
//! (Protocol Buffers encoding). It gives every occurrence: which of several a decoder takes is then
//! no question.

use bytes::Buf;
use prost::{
    DecodeError,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use thiserror::Error;

/// A message that can't be looked into.
#[derive(Debug, Error)]
pub(super) enum FieldError {
    /// It is no message.
    #[error(transparent)]
    Message(#[from] DecodeError),
    /// The field holds no text.
    #[error("field {0} is not a text")]
    NoText(u32),
}

/// Every value of the field at `path`, a field number for each message on the way, in `message`.
pub(super) fn texts<'a>(message: &'a [u8], path: &[u32]) -> Result<Vec<&'a str>, FieldError> {
    let mut found = Vec::new();
    collect(message, path, &mut found)?;
    Ok(found)
}

fn collect<'a>(
    mut message: &'a [u8],
    path: &[u32],
    found: &mut Vec<&'a str>,
) -> Result<(), FieldError> {
    let Some((&wanted, rest)) = path.split_first() else {
        return Ok(());
    };
    while message.has_remaining() {
        let (number, wire_type) = decode_key(&mut message)?;
        if number != wanted {
            skip_field(wire_type, number, &mut message, DecodeContext::default())?;
            continue;
        }
        if wire_type != WireType::LengthDelimited {
            return Err(FieldError::NoText(number));
        }
        let length = usize::try_from(decode_varint(&mut message)?);
        let value = length
            .ok()
            .and_then(|length| message.split_at_checked(length));
        let (value, after) = value.ok_or(FieldError::NoText(number))?;
        message = after;
        if rest.is_empty() {
            found.push(std::str::from_utf8(value).map_err(|_| FieldError::NoText(number))?);
        } else {
            collect(value, rest, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use countersign_proto::v1;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn update(name: &str, url: &str) -> v1::UpdateDestinationRequest {
        v1::UpdateDestinationRequest {
            destination: Some(v1::Destination {
                name: name.to_owned(),
                url: url.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_field_is_found_at_any_depth_and_as_often_as_it_is_there() {
        let submit = v1::SubmitDeliveryRequest {
            destination: "accounts/acme/destinations/orders".to_owned(),
            payload: vec![0; 70_000].into(),
            request_id: "1".to_owned(),
            ..Default::default()
        };
        let encoded = submit.encode_to_vec();
        assert_eq!(texts(&encoded, &[1]).unwrap(), [&submit.destination]);
        assert!(texts(&encoded, &[9]).unwrap().is_empty());
        assert!(texts(&[], &[1]).unwrap().is_empty());

        // Decoders merge a message that is there twice: each part counts.
        let mut twice = update("accounts/acme/destinations/a", "").encode_to_vec();
        twice.extend(update("accounts/globex/destinations/b", "https://x/").encode_to_vec());
        let both = [
            "accounts/acme/destinations/a",
            "accounts/globex/destinations/b",
        ];
        assert_eq!(texts(&twice, &[1, 1]).unwrap(), both);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let encoded = update("accounts/acme", "").encode_to_vec();
        assert!(texts(&encoded[..encoded.len() - 1], &[1, 1]).is_err());
        assert!(texts(&[0x0a, 0x01, 0xff], &[1]).is_err(), "not UTF-8");
        assert!(texts(&[0x08, 0x01], &[1]).is_err(), "a number");
        assert!(texts(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], &[1]).is_err());
    }

    proptest! {
        /// What a decoder takes is always among what is found.
        #[test]
        fn no_bytes_are_read_otherwise_than_by_the_decoder(
            bytes in proptest::collection::vec(prop_oneof![Just(0x0a_u8), 0..6_u8, any::<u8>()], 0..40)
        ) {
            let found = texts(&bytes, &[1, 1]);
            if let Ok(decoded) = v1::UpdateDestinationRequest::decode(bytes.as_slice()) {
                let taken = decoded.destination.unwrap_or_default().name;
                let found = found.expect("what decodes can be looked into");
                prop_assert!(taken.is_empty() || found.contains(&taken.as_str()));
            }
        }
    }
}
