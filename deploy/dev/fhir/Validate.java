import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.context.support.DefaultProfileValidationSupport;
import ca.uhn.fhir.validation.FhirValidator;
import ca.uhn.fhir.validation.ResultSeverityEnum;
import ca.uhn.fhir.validation.SingleValidationMessage;
import java.nio.file.Files;
import java.nio.file.Path;
import org.hl7.fhir.common.hapi.validation.support.CommonCodeSystemsTerminologyService;
import org.hl7.fhir.common.hapi.validation.support.InMemoryTerminologyServerValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.SnapshotGeneratingValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.ValidationSupportChain;
import org.hl7.fhir.common.hapi.validation.validator.FhirInstanceValidator;

/**
 * The official R4 definitions, offline, over every file named: {@code java -cp ... Validate.java FILE...}. One line a complaint on stdout,
 * the number of files and complaints last; exit 1 if there was an error, 0 if none. Warnings are counted and, with -v, shown.
 */
public class Validate {

  public static void main(String[] arguments) throws Exception {
    boolean verbose = arguments.length > 0 && arguments[0].equals("-v");
    FhirContext fhir = FhirContext.forR4();
    FhirInstanceValidator instance =
        new FhirInstanceValidator(
            new ValidationSupportChain(
                new DefaultProfileValidationSupport(fhir),
                new InMemoryTerminologyServerValidationSupport(fhir),
                new CommonCodeSystemsTerminologyService(fhir),
                new SnapshotGeneratingValidationSupport(fhir)));
    instance.setAnyExtensionsAllowed(true);
    FhirValidator validator = fhir.newValidator().registerValidatorModule(instance);

    int errors = 0;
    int warnings = 0;
    int files = 0;
    for (String name : arguments) {
      if (name.equals("-v")) {
        continue;
      }
      files++;
      for (SingleValidationMessage message : validator.validateWithResult(Files.readString(Path.of(name))).getMessages()) {
        boolean error = message.getSeverity().compareTo(ResultSeverityEnum.ERROR) >= 0;
        if (error) {
          errors++;
        } else {
          warnings++;
        }
        if (error || verbose) {
          System.out.println(
              name + ": " + message.getSeverity() + " " + message.getLocationString() + ": " + message.getMessage());
        }
      }
    }
    System.out.println(files + " files, " + errors + " errors, " + warnings + " warnings");
    System.exit(errors == 0 ? 0 : 1);
  }
}
