//! The requests of the API, from its descriptors: which method takes which, and what their fields are
//! numbered.

use std::collections::HashMap;

use countersign_proto::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::{
    DescriptorProto, FileDescriptorSet, field_descriptor_proto::Label, field_descriptor_proto::Type,
};

use super::RulesError;

/// The messages of package `countersign.v1`, and which method takes which.
pub(super) struct Requests {
    pub(super) messages: HashMap<String, DescriptorProto>,
    pub(super) methods: HashMap<String, String>,
}

impl Requests {
    /// Those of the API.
    ///
    /// # Errors
    /// [`RulesError::Descriptors`].
    pub(super) fn of_the_api() -> Result<Self, RulesError> {
        let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET)
            .map_err(|error| RulesError::Descriptors(error.to_string()))?;
        let ours = files.file.into_iter();
        let ours = ours.filter(|file| file.package() == "countersign.v1");
        let (mut messages, mut methods) = (HashMap::new(), HashMap::new());
        for file in ours {
            for service in &file.service {
                for method in &service.method {
                    let name = format!("{}/{}", service.name(), method.name());
                    methods.insert(name, method.input_type().to_owned());
                }
            }
            let named = file.message_type.into_iter();
            messages.extend(named.map(|it| (format!(".countersign.v1.{}", it.name()), it)));
        }
        Ok(Self { messages, methods })
    }

    /// The request of `Service/Method`.
    pub(super) fn of(&self, method: &str) -> Option<&DescriptorProto> {
        self.messages.get(self.methods.get(method)?)
    }

    /// Field numbers of a text field, whose name has a dot after each message on the way.
    pub(super) fn path(&self, request: &DescriptorProto, name: &str) -> Result<Vec<u32>, String> {
        let wrong = || format!("'{name}' is not a text field of {}", request.name());
        let mut path = Vec::new();
        let mut message = Some(request);
        for part in name.split('.') {
            let fields = &message.ok_or_else(wrong)?.field;
            let field = fields.iter().find(|field| field.name() == part);
            let field = field.ok_or_else(wrong)?;
            path.push(field.number().unsigned_abs());
            message = self.messages.get(field.type_name());
            let is_text = field.r#type() == Type::String;
            if field.label() == Label::Repeated || message.is_some() == is_text {
                return Err(wrong());
            }
        }
        match message {
            None => Ok(path),
            Some(_) => Err(wrong()),
        }
    }
}
